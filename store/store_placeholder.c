typedef int store_placeholder;

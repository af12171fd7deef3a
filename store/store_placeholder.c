/* store_placeholder.c: until the store lands. */
typedef int store_placeholder;

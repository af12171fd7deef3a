# embed.cmake: writes the C file that holds the dashboard (server/assets.h).
#
#   cmake -DFOLDER=static -DNAMES="app.js;index.html" -DOUT=assets_data.c -P embed.cmake
set(text "/* Written by server/embed.cmake. */\n#include \"server/assets.h\"\n\n")
set(rows "")
set(i 0)
foreach(name ${NAMES})
  file(READ ${FOLDER}/${name} hex HEX)
  file(SHA256 ${FOLDER}/${name} hash)
  string(SUBSTRING ${hash} 0 32 tag)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
  string(APPEND text "static const unsigned char bytes_${i}[] = {\n${bytes}};\n\n")
  string(APPEND rows "    {\"${name}\", \"\\\"${tag}\\\"\", bytes_${i}, sizeof bytes_${i}},\n")
  math(EXPR i "${i} + 1")
endforeach()
string(APPEND text "const struct asset asset_files[] = {\n${rows}};\n")
string(APPEND text "const size_t asset_files_count = sizeof asset_files / sizeof asset_files[0];\n")
file(WRITE ${OUT} "${text}")

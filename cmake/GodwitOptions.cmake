# What a builder may choose, and the compile flags that follow from it.

# Who takes this tree into a build of their own wants the library and not its tests.
option(GODWIT_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(GODWIT_LAB "Register the tests that boot virtual machines (label lab)" ${PROJECT_IS_TOP_LEVEL})
option(GODWIT_BENCH "Build the micro-benchmarks" ${PROJECT_IS_TOP_LEVEL})
option(GODWIT_EXAMPLES "Build the examples of embedding" ${PROJECT_IS_TOP_LEVEL})
option(GODWIT_INSTALL "Have rules to install the library and the command" ${PROJECT_IS_TOP_LEVEL})
option(GODWIT_FUZZ "Build the fuzz targets for libFuzzer; needs clang" OFF)
set(GODWIT_SANITIZE "" CACHE STRING "Sanitizers to build with: '', 'address,undefined' or 'thread'")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

add_library(godwit_flags INTERFACE)
target_compile_options(godwit_flags INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor
  -Woverloaded-virtual -Wcast-align -Wundef -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(godwit_flags INTERFACE -Wthread-safety -Wthread-safety-beta)
else()
  target_compile_options(godwit_flags INTERFACE -Wsuggest-override)
endif()
if(GODWIT_SANITIZE)
  # The linker option is needed everywhere; frame pointers make the reports readable.
  target_compile_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE})
  if(GODWIT_SANITIZE MATCHES undefined)
    target_compile_options(godwit_flags INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
if(GODWIT_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
    message(FATAL_ERROR "libFuzzer comes with clang: configure with -DCMAKE_CXX_COMPILER=clang++, "
      "or use the preset fuzz.")
  endif()
  # What a target reaches is counted in every layer; libFuzzer's main() is for the targets alone.
  target_compile_options(godwit_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(GODWIT_CCACHE ccache)
if(GODWIT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${GODWIT_CCACHE})
endif()

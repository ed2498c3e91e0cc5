# godwit_layer(NAME SOURCES … DEPENDS …): a static library godwit_NAME with the alias godwit::NAME.
function(godwit_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(godwit_${name} STATIC ${ARG_SOURCES})
  add_library(godwit::${name} ALIAS godwit_${name})
  target_include_directories(godwit_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  target_link_libraries(godwit_${name} PUBLIC ${ARG_DEPENDS}
    PRIVATE godwit_flags ${ARG_PRIVATE_DEPENDS})
  target_precompile_headers(godwit_${name} PRIVATE
    <cstddef> <cstdint> <memory> <optional> <string> <string_view> <utility> <vector>
    <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h>
    <absl/strings/str_format.h> <absl/types/span.h>)
endfunction()

# godwit_test(NAME SOURCES … DEPENDS … [LABELS …]): one gtest executable; every case is a ctest test.
function(godwit_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  target_link_libraries(${name} PRIVATE godwit_flags ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  target_precompile_headers(${name} PRIVATE <gtest/gtest.h> <gmock/gmock.h>
    <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h>)
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 120 LABELS "${ARG_LABELS}")
endfunction()

# godwit::godwit: what an embedder links, in this tree or installed. One static library of all
# layers, since the order of four would be every embedder's to get right; the layers stay targets of
# their own for what is built here.

set(godwit_library_layers base vfio transport engine)
# What the headers in include/godwit use, and what only the code behind them does.
set(godwit_absl_public span status statusor strings)
set(godwit_absl_private base core_headers str_format)

add_library(godwit_library STATIC $<TARGET_OBJECTS:godwit_control_proto>)
foreach(layer IN LISTS godwit_library_layers)
  target_sources(godwit_library PRIVATE $<TARGET_OBJECTS:godwit_${layer}>)
endforeach()
# The command has the target name godwit already.
add_library(godwit::godwit ALIAS godwit_library)
set_target_properties(godwit_library PROPERTIES
  OUTPUT_NAME godwit EXPORT_NAME godwit LINKER_LANGUAGE CXX)

target_compile_features(godwit_library PUBLIC cxx_std_20)
target_include_directories(godwit_library INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
list(TRANSFORM godwit_absl_public PREPEND absl:: OUTPUT_VARIABLE absl_public_targets)
list(TRANSFORM godwit_absl_private PREPEND absl:: OUTPUT_VARIABLE absl_private_targets)
target_link_libraries(godwit_library
  PUBLIC ${absl_public_targets}
  PRIVATE ${absl_private_targets} OpenSSL::SSL OpenSSL::Crypto protobuf::libprotobuf-lite PkgConfig::IBVERBS PkgConfig::LIBISAL
          PkgConfig::LIBURING Threads::Threads)

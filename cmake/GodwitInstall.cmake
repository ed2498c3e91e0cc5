# What `cmake --install` puts where. Nothing installed names a folder of this machine, so the whole
# may be moved; what it needs of others is found where it is used.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS godwit RUNTIME)
install(DIRECTORY include/godwit TYPE INCLUDE FILES_MATCHING PATTERN *.h)
install(TARGETS godwit_library EXPORT godwitTargets
  ARCHIVE INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# ---- For find_package(godwit)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/godwit)
install(EXPORT godwitTargets NAMESPACE godwit:: DESTINATION ${package_dir})
configure_package_config_file(cmake/godwitConfig.cmake.in ${PROJECT_BINARY_DIR}/godwitConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Until 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/godwitConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/godwitConfig.cmake
  ${PROJECT_BINARY_DIR}/godwitConfigVersion.cmake DESTINATION ${package_dir})

# ---- For pkg-config

set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
list(TRANSFORM godwit_absl_public PREPEND absl_ OUTPUT_VARIABLE pc_requires)
list(JOIN pc_requires ", " pc_requires)
list(TRANSFORM godwit_absl_private PREPEND absl_ OUTPUT_VARIABLE pc_requires_private)
list(JOIN pc_requires_private ", " pc_requires_private)
file(RELATIVE_PATH pc_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
# Either may have been given as a whole path.
foreach(dir IN ITEMS INCLUDEDIR LIBDIR)
  cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_${dir} BASE_DIRECTORY "\${prefix}" OUTPUT_VARIABLE pc_${dir})
endforeach()
configure_file(cmake/godwit.pc.in ${PROJECT_BINARY_DIR}/godwit.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/godwit.pc DESTINATION ${pkgconfig_dir})

# ---- For people. Folders as in the tree, so that links between the pages hold.

install(FILES LICENSE README.md TYPE DOC)
install(DIRECTORY docs TYPE DOC FILES_MATCHING PATTERN *.md)
install(DIRECTORY examples TYPE DOC FILES_MATCHING PATTERN *.cc PATTERN *.h)

# What `cmake --install` and `cpack -G DEB` put where: program, library (shared and static), headers, sllm.pc, manual page.
include(GNUInstallDirs)
install(TARGETS sllm_static sllm_shared
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/sllm.h include/sllm_hub.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

# The prefix is found from where the file lies, so that a tree installed elsewhere (DESTDIR, --prefix) works.
file(RELATIVE_PATH SLLM_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(packaging/sllm.pc.in sllm.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/sllm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET sllm_cli)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/sllm.1 DEPENDS sllm_cli
      COMMAND sllm_cli help --man > ${CMAKE_BINARY_DIR}/sllm.1)
  add_custom_target(sllm_man ALL DEPENDS ${CMAKE_BINARY_DIR}/sllm.1)
  install(TARGETS sllm_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES ${CMAKE_BINARY_DIR}/sllm.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME sllm)
set(CPACK_PACKAGE_CONTACT "sllm developers <sllm@example.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3, python3-pip, ca-certificates") # `sllm pull` of models in pip packages
include(CPack)

# The AVX-512 kernels, emulated with AVX2 (x86/immintrin.h), through the tests of the operations: their objects take the
# place of the library's. On hardware the tests without this ending run the real ones.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT SLLM_FUZZ)
  add_library(emulated_avx512 OBJECT emulate/kernels_avx512.c emulate/cpu.c)
  target_link_libraries(emulated_avx512 PRIVATE sllm_flags)
  set_source_files_properties(emulate/kernels_avx512.c PROPERTIES COMPILE_OPTIONS
      "-I${CMAKE_CURRENT_SOURCE_DIR}/emulate/x86;-mavx2;-mfma;-mf16c;${quick}")
  foreach(name IN ITEMS test_ops test_panel)
    add_executable(${name}_emulated unit/${name}.c $<TARGET_OBJECTS:emulated_avx512>)
    target_link_libraries(${name}_emulated PRIVATE sllm_static PkgConfig::CMOCKA)
    target_compile_definitions(${name}_emulated PRIVATE SLLM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  endforeach()
  add_test(NAME unit.test_ops_emulated COMMAND test_ops_emulated 3) # all of scalar, avx2, avx512
  add_test(NAME unit.test_panel_emulated COMMAND test_panel_emulated 3)
  set_tests_properties(unit.test_ops_emulated unit.test_panel_emulated PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
endif()

# End-to-end tests of the binary: every tests/e2e/test_*.py is a ctest test e2e.NAME. They need Python's standard library
# only, take the program from SLLM and say in SLLM_SANITIZE when it is built with sanitizers.
find_program(PYTHON3 python3 REQUIRED)
file(GLOB e2e_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/test_*.py)
foreach(source IN LISTS e2e_sources)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^test_" "" name ${name})
  add_test(NAME e2e.${name} COMMAND ${PYTHON3} ${source})
  set_tests_properties(e2e.${name} PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77 ENVIRONMENT
      "SLLM=$<TARGET_FILE:sllm_cli>;SLLM_SOURCE_DIR=${CMAKE_SOURCE_DIR};SLLM_BUILD_DIR=${CMAKE_BINARY_DIR};SLLM_SANITIZE=${SLLM_SANITIZE};PYTHONDONTWRITEBYTECODE=1")
endforeach()
set_tests_properties(e2e.bench PROPERTIES RUN_SERIAL TRUE) # speeds, which another test beside would change

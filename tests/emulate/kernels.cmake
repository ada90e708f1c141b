# SLLM_KERNELS_ONLY: src/tensor, the ground it stands on, and their unit tests, with nothing but the C library. What the
# tests take from elsewhere has small stand-ins here: cmocka.h, and safetensors.c for one committed file.
enable_testing()
file(GLOB tensor_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/tensor/*.c)
foreach(name IN ITEMS clock cpu error pool rng)
  list(APPEND ground_sources ${CMAKE_SOURCE_DIR}/src/base/${name}.c)
endforeach()
add_library(sllm_kernels STATIC ${tensor_sources} ${ground_sources})
target_link_libraries(sllm_kernels PUBLIC sllm_flags Threads::Threads m)

foreach(name IN ITEMS test_ops test_panel test_pool test_types)
  add_executable(${name} tests/unit/${name}.c tests/emulate/safetensors.c)
  target_include_directories(${name} PRIVATE tests/emulate/cmocka)
  target_compile_definitions(${name} PRIVATE SLLM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE sllm_kernels)
  target_compile_options(${name} PRIVATE -fno-tree-vectorize) # aarch64-linux-gnu-gcc 12.2 fails on a loop of test_ops
endforeach()

# Three sets of kernels; a processor without the dot-product instructions has two of them.
add_test(NAME neon.test_types COMMAND test_types)
add_test(NAME neon.test_pool COMMAND test_pool)
add_test(NAME neon.test_panel COMMAND test_panel 3)
add_test(NAME neon.test_ops COMMAND test_ops 3)
add_test(NAME neon.test_ops_without_dot COMMAND ${CMAKE_CROSSCOMPILING_EMULATOR} -cpu cortex-a72 $<TARGET_FILE:test_ops> 2)
set_tests_properties(neon.test_types neon.test_pool neon.test_panel neon.test_ops neon.test_ops_without_dot 
                     PROPERTIES TIMEOUT 600)

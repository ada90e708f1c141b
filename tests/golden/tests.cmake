# Golden data as ctest tests: the part in the repository always; all of ../shared/golden where it lies beside the
# repository, otherwise skipped. `real` needs the models of the catalogue in the model cache and skips what is absent.
set(golden_data ${CMAKE_CURRENT_LIST_DIR}/data)
set(golden_shared ${CMAKE_SOURCE_DIR}/../shared/golden)
function(add_golden name kind directory)
  add_test(NAME golden.${name} COMMAND sh -c
      "[ -d '${directory}' ] || { echo 'skipped: no ${directory}'; exit 77; }; exec '$<TARGET_FILE:golden>' --ctest ${kind} '${directory}'")
  set_tests_properties(golden.${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1200)
endfunction()
add_golden(models.own models ${golden_data}/models)
add_golden(quant.own quant ${golden_data}/quant)
add_golden(templates.own templates ${golden_data}/templates)
add_golden(tokenizers.own tokenizers ${golden_data}/tokenizers)
foreach(kind models quant tokenizers templates adapters training metrics)
  add_golden(${kind} ${kind} ${golden_shared}/${kind})
endforeach()
if(NOT SLLM_SANITIZE) # two whole models in f32: minutes under a sanitizer, and nothing that the tiny ones do not touch
  add_golden(real real ${golden_shared}/real)
endif()

#include "text/jinja.h"
void sl_jinja_pprint(jinja_text *out, jinja_value v) { sl_jinja_write_repr(out, v); }

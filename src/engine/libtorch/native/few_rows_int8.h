#pragma once
#include "few_rows.h"

namespace alitok {

/** Whether `few_rows_bytes` takes a layer with weights in int8 on this processor. */
bool multiplies_bytes(const FewRowsLayer& layer);

/** As `few_rows_product`, with x rounded to 16 bits relative to the largest number in its row. */
void few_rows_bytes(const float* x, int64_t rows, const FewRowsLayer& layer, int64_t first, int64_t last, float* y);

}  // namespace alitok

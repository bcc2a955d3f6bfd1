// Loops over single rows that several files use. Details are at their definitions.
#pragma once
#include <cstdint>

namespace alitok {

/** RMSNorm of the rows from `first` to `last` of x (rows, d). */
void rms_rows(const float* x, const float* w, float* y, int64_t d, float epsilon, int64_t first, int64_t last);

/** Rotates pairs of adjacent numbers by the angles with cosines c and sines s; with sign −1, back. x may be y. */
void rotate(const float* x, const float* c, const float* s, float* y, int64_t pairs, float sign);

/** silu(gate)·value of the elements from `first` to `last`. y may be gate. */
void swiglu_range(const float* gate, const float* value, float* y, int64_t first, int64_t last);

/** Attention of one query over `length` keys and values, `width` numbers each and `stride` apart; p is room for `length`. */
void attend(const float* q, const float* k, const float* v, float* y, float* p, int64_t length, int64_t stride,
            int64_t width, float scale);

}  // namespace alitok

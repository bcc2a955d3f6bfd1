#pragma once
#include <cstdint>

namespace alitok {

/** The 32-bit hash of (index, seed) that decides every dropout, the same in all engines. */
inline __attribute__((always_inline)) uint32_t hash(uint32_t index, uint32_t seed) {
  uint32_t h = index + seed * 0x9e3779b1u;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

}  // namespace alitok

// The product with compressed weights, by AVX2 and FMA: see compressed_product.h.
#include "kernels/cpu/compressed_product.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

// A pair of blocks in two vectors each. Prepared inputs lie block by block, the 16 even ones, then
// the 16 odd ones.
struct BlockByBlock {
  // The inputs of so many blocks, which tiles of more than one row take at once.
  static constexpr size_t kDepthBlocks = 32;

  struct Codes {
    __m256i even[2], odd[2];
  };
  struct Lanes {
    __m256 of[2];
  };

  static inline void store_pair(int16_t* to, const RoundedBlock& first,
                                const RoundedBlock& second) {
    auto* const codes = reinterpret_cast<__m256i*>(to);
    _mm256_storeu_si256(codes, first.even);
    _mm256_storeu_si256(codes + 1, first.odd);
    _mm256_storeu_si256(codes + 2, second.even);
    _mm256_storeu_si256(codes + 3, second.odd);
  }

  static inline Lanes load(const float* lanes) {
    return {{_mm256_load_ps(lanes), _mm256_load_ps(lanes + kLanes)}};
  }
  static inline void store(float* to, const Lanes& lanes) {
    _mm256_store_ps(to, lanes.of[0]);
    _mm256_store_ps(to + kLanes, lanes.of[1]);
  }
  static inline __m256 sum(const Lanes& lanes) { return _mm256_add_ps(lanes.of[0], lanes.of[1]); }

  // The even and the odd codes of both blocks.
  template <NumberFormat F>
  static inline Codes widen(const char* pair) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair));
    Codes to;
    if constexpr (F == NumberFormat::kQ8) {
      const auto* const second = reinterpret_cast<const __m256i*>(pair + kBlockNumbers);
      const __m256i words[2] = {bytes, _mm256_loadu_si256(second)};
      for (size_t b = 0; b < 2; ++b) {
        to.even[b] = _mm256_srai_epi16(_mm256_slli_epi16(words[b], 8), 8);
        to.odd[b] = _mm256_srai_epi16(words[b], 8);
      }
    } else if constexpr (F == NumberFormat::kQ4) {
      const __m256i low = _mm256_set1_epi16(0xf);
      to.even[0] = _mm256_and_si256(bytes, low);
      to.odd[0] = _mm256_and_si256(_mm256_srli_epi16(bytes, 8), low);
      to.even[1] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
      to.odd[1] = _mm256_srli_epi16(bytes, 12);
    } else {
      // A value's lower byte and its upper one are looked up by themselves.
      const __m256i low_bytes = table(0), high_bytes = table(1);
      const __m256i nibble = _mm256_set1_epi8(0xf), lower = _mm256_set1_epi16(0xff);
      for (size_t b = 0; b < 2; ++b) {
        const __m256i code = _mm256_and_si256(b == 0 ? bytes : _mm256_srli_epi16(bytes, 4), nibble);
        const __m256i low = _mm256_shuffle_epi8(low_bytes, code);
        const __m256i high = _mm256_shuffle_epi8(high_bytes, code);
        to.even[b] = _mm256_or_si256(_mm256_and_si256(low, lower), _mm256_slli_epi16(high, 8));
        to.odd[b] = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_andnot_si256(lower, high));
      }
    }
    return to;
  }

  // Adds the products of a pair of blocks to `lanes`; `scales` has those of both.
  static inline void add_pair(const Codes& codes, const int16_t* inputs, const float* scales,
                              Lanes& lanes) {
    const auto* const x = reinterpret_cast<const __m256i*>(inputs);
#pragma GCC unroll 2
    for (size_t b = 0; b < 2; ++b) {
      const __m256i even = _mm256_madd_epi16(codes.even[b], _mm256_loadu_si256(x + 2 * b));
      const __m256i odd = _mm256_madd_epi16(codes.odd[b], _mm256_loadu_si256(x + 2 * b + 1));
      lanes.of[b] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(even, odd)),
                                    _mm256_broadcast_ss(scales + b), lanes.of[b]);
    }
  }

  // Four rows at once.
  template <typename Body>
  static inline void take_rows(size_t rows, const Body& body) {
    take_by_halves<4>(rows, body);
  }

 private:
  struct ByteTable {
    alignas(16) int8_t bytes[2][16];  // of kNF4Table's values: lower, upper
  };
  static constexpr ByteTable make_table() {
    ByteTable out{};
    for (size_t i = 0; i < 16; ++i) {
      out.bytes[0][i] = static_cast<int8_t>(kNF4Table.values[i] & 0xff);
      out.bytes[1][i] = static_cast<int8_t>(kNF4Table.values[i] >> 8);
    }
    return out;
  }
  static inline __m256i table(size_t which) {
    static constexpr ByteTable kTable = make_table();
    return _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(kTable.bytes[which])));
  }
};

}  // namespace

size_t prepared_bytes(size_t in) { return prepared_row_bytes(in); }

void prepare(const MatmulArgs& args, void* prepared, ThreadPool& pool) {
  prepare_rows<BlockByBlock>(args, prepared, pool);
}

void matmul_compressed(const MatmulArgs& args, ThreadPool& pool) {
  matmul_compressed_with<BlockByBlock>(args, pool);
}

}  // namespace airllm::kernels::avx2

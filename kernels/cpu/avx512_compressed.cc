// The product with compressed weights, by AVX-512 with VNNI: see compressed_product.h.
#include "kernels/cpu/compressed_product.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx512 {
namespace {

// A pair of blocks in one vector of even numbers and one of odd ones. The 32-bit lanes belong to
// the first and to the second block in turn, so that the scales of both, as they lie in memory, are
// broadcast to where they are needed by the load alone. Prepared inputs lie in that order, too.
struct BlocksInTurn {
  // 768 inputs of 8 rows and of 16 outputs of q8 are 25 KiB.
  static constexpr size_t kDepthBlocks = 24;

  struct Codes {
    __m512i even, odd;
  };
  using Lanes = __m512;

  static inline void store_pair(int16_t* to, const avx2::RoundedBlock& first,
                                const avx2::RoundedBlock& second) {
    _mm512_storeu_si512(to, in_turn(join(first.even, second.even)));
    _mm512_storeu_si512(to + kBlockNumbers, in_turn(join(first.odd, second.odd)));
  }

  static inline Lanes load(const float* lanes) { return _mm512_loadu_ps(lanes); }
  static inline void store(float* to, Lanes lanes) { _mm512_storeu_ps(to, lanes); }
  // Of the first block's lane i and the second's.
  static inline __m256 sum(Lanes lanes) {
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    const __m512 apart = _mm512_permutexvar_ps(order, lanes);
    return _mm256_add_ps(_mm512_castps512_ps256(apart), _mm512_extractf32x8_ps(apart, 1));
  }

  // The even and the odd codes of both blocks.
  template <NumberFormat F>
  static inline Codes widen(const char* pair) {
    if constexpr (F == NumberFormat::kQ8) {
      const __m512i words = in_turn(_mm512_loadu_si512(pair));
      return {_mm512_srai_epi16(_mm512_slli_epi16(words, 8), 8), _mm512_srai_epi16(words, 8)};
    } else {
      // Each four bytes twice: the lower halves are the first block's, the upper the second's.
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair));
      const __m512i order = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      const __m512i twice = _mm512_permutexvar_epi32(order, _mm512_castsi256_si512(bytes));
      const __m512i even = _mm512_srlv_epi16(twice, _mm512_set1_epi64(0x0004000400000000));
      const __m512i odd = _mm512_srlv_epi16(twice, _mm512_set1_epi64(0x000c000c00080008));
      if constexpr (F == NumberFormat::kQ4) {
        const __m512i low = _mm512_set1_epi16(0xf);
        return {_mm512_and_si512(even, low), _mm512_and_si512(odd, low)};
      } else {
        // The fifth bit is looked at, too, so the table has its values twice.
        const auto* const values = reinterpret_cast<const __m256i*>(avx2::kNF4Table.values);
        const __m512i table = _mm512_broadcast_i64x4(_mm256_loadu_si256(values));
        return {_mm512_permutexvar_epi16(even, table), _mm512_permutexvar_epi16(odd, table)};
      }
    }
  }

  // Adds the products of a pair of blocks to `lanes`; `scales` has those of both.
  static inline void add_pair(const Codes& codes, const int16_t* inputs, const float* scales,
                              Lanes& lanes) {
    double both;
    std::memcpy(&both, scales, sizeof(both));
    const __m512i even = _mm512_madd_epi16(codes.even, _mm512_loadu_si512(inputs));
    const __m512i sum =
        _mm512_dpwssd_epi32(even, codes.odd, _mm512_loadu_si512(inputs + kBlockNumbers));
    lanes = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_castpd_ps(_mm512_set1_pd(both)), lanes);
  }

  // Eight rows at once.
  template <typename Body>
  static inline void take_rows(size_t rows, const Body& body) {
    avx2::take_by_halves<8>(rows, body);
  }

 private:
  static inline __m512i join(__m256i first, __m256i second) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  }
  // 32-bit lanes of both halves in turn.
  static inline __m512i in_turn(__m512i v) {
    const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    return _mm512_permutexvar_epi32(order, v);
  }
};

}  // namespace

void prepare(const MatmulArgs& args, void* prepared, ThreadPool& pool) {
  avx2::prepare_rows<BlocksInTurn>(args, prepared, pool);
}

void matmul_compressed(const MatmulArgs& args, ThreadPool& pool) {
  avx2::matmul_compressed_with<BlocksInTurn>(args, pool);
}

}  // namespace airllm::kernels::avx512

// The device's operations against the scalar reference. Without a device every test is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_api.h"
#include "tests/kernels/random_data.h"

// The build says where the module lies; tools that read this file by itself do not.
#ifndef AIRLLM_CUDA_MODULE
#define AIRLLM_CUDA_MODULE "libairllm_cuda.so"
#endif

namespace airllm::kernels::testing {
namespace {

// A copy of host numbers on the device.
class DeviceMemory {
 public:
  DeviceMemory(const CudaApi& api, CudaStream* stream, const void* host, size_t bytes)
      : api_(api), stream_(stream) {
    EXPECT_EQ(0, api.allocate(bytes, &memory_));
    EXPECT_EQ(0, api.copy(memory_, host, bytes, stream));
    EXPECT_EQ(0, api.synchronize(stream));
  }
  ~DeviceMemory() { EXPECT_EQ(0, api_.release(memory_)); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  template <typename T = float>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  std::vector<float> floats(size_t count) const {
    std::vector<float> host(count);
    EXPECT_EQ(0, api_.copy(host.data(), memory_, count * sizeof(float), stream_));
    EXPECT_EQ(0, api_.synchronize(stream_));
    return host;
  }

 private:
  const CudaApi& api_;
  CudaStream* stream_;
  void* memory_ = nullptr;
};

class Cuda : public ::testing::Test {
 protected:
  void SetUp() override {
    const Result<const CudaApi*> loaded = load_cuda_module(AIRLLM_CUDA_MODULE);
    ASSERT_TRUE(loaded) << loaded.error().message;
    api_ = *loaded;
    if (api_->device_count() == 0) GTEST_SKIP() << "no CUDA device in this machine";
    ASSERT_EQ(0, api_->use_device(0));
    ASSERT_EQ(0, api_->create_stream(&stream_));
  }
  void TearDown() override {
    if (stream_ == nullptr) return;
    EXPECT_EQ(0, api_->destroy_stream(stream_));
  }

  DeviceMemory upload(const std::vector<float>& host) {
    return {*api_, stream_, host.data(), host.size() * sizeof(float)};
  }
  // The numbers from their first one on; `shift` elements later, to have them aligned to no more
  // than their element.
  DeviceMemory upload(const StoredNumbers& numbers, size_t shift) {
    const size_t size = bytes_per_element(numbers.format());
    std::vector<char> bytes((numbers.size() + shift) * size);
    std::memcpy(bytes.data() + shift * size, numbers.data(), numbers.size() * size);
    return {*api_, stream_, bytes.data(), bytes.size()};
  }
  // The tolerance of both sides' rounding, each at most `roundings` of `magnitude`.
  static void expect_near(const std::vector<float>& expected, const std::vector<float>& actual,
                          double roundings, double magnitude) {
    ASSERT_EQ(expected.size(), actual.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(expected[i], actual[i], 2 * roundings * kRounding * magnitude) << i;
    }
  }
  // args has the host's weight; the device has the same at `weight`. What it adds to 1 is near the
  // reference, and every row has the same bits alone.
  void expect_product(MatmulArgs args, const std::vector<float>& x, const char* weight,
                      double roundings, double magnitude) {
    const std::vector<float> ones(args.rows * args.out, 1);
    std::vector<float> expected = ones;
    args.x = x.data();
    args.x_stride = args.in;
    args.y = expected.data();
    args.y_stride = args.out;
    args.accumulate = true;
    scalar_backend().matmul(args, pool_);

    const DeviceMemory device_x = upload(x), together = upload(ones), alone = upload(ones);
    args.weight = weight;
    args.x = device_x.as();
    args.y = together.as();
    ASSERT_EQ(0, api_->matmul(args, stream_));
    const size_t rows = std::exchange(args.rows, 1);
    for (size_t r = 0; r < rows; ++r) {
      args.x = device_x.as() + r * args.in;
      args.y = alone.as() + r * args.out;
      ASSERT_EQ(0, api_->matmul(args, stream_));
    }
    const std::vector<float> actual = together.floats(expected.size());
    ASSERT_NO_FATAL_FAILURE(expect_near(expected, actual, roundings, magnitude));
    ASSERT_TRUE(same_bits(actual, alone.floats(expected.size())));
  }

  const CudaApi* api_ = nullptr;
  CudaStream* stream_ = nullptr;
  ThreadPool pool_{1};
};

// A skip says nothing of the module itself; this runs everywhere.
TEST(CudaModule, LoadsAndAnswersWithoutADevice) {
  const Result<const CudaApi*> loaded = load_cuda_module(AIRLLM_CUDA_MODULE);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(kCudaApiVersion, (*loaded)->version);
  EXPECT_GE((*loaded)->device_count(), 0);
  EXPECT_STRNE("", (*loaded)->error_text(1));
}

TEST(CudaModule, AMissingModuleIsAnError) {
  const Result<const CudaApi*> loaded = load_cuda_module("/nonexistent/libairllm_cuda.so");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(ErrorCode::kUnavailable, loaded.error().code);
  EXPECT_NE(std::string::npos, loaded.error().message.find("/nonexistent/libairllm_cuda.so"));
}

TEST_F(Cuda, MatmulMatchesTheReferenceAndEachRowIsItsOwn) {
  Random random;
  for (const NumberFormat format : kFormats) {
    for (const size_t in : {1u, 7u, 8u, 9u, 257u, 1024u, 2049u}) {
      for (const size_t shift : {0u, 1u}) {
        constexpr size_t kRows = 13, kOut = 37;
        const std::vector<float> x = random.floats(kRows * in);
        const StoredNumbers weight = random.stored(format, kOut * in);
        MatmulArgs args;
        args.in = in;
        args.out = kOut;
        args.rows = kRows;
        args.format = format;
        args.weight = weight.data();
        const DeviceMemory on_device = upload(weight, shift);
        const double n = static_cast<double>(in);
        ASSERT_NO_FATAL_FAILURE(
            expect_product(args, x, on_device.as<char>() + shift * bytes_per_element(format),
                           4 * std::sqrt(n) + 4, n + 1));
      }
    }
  }
}

// Rows with something behind them, at an odd address.
TEST_F(Cuda, CompressedMatmulMatchesTheReferenceAndEachRowIsItsOwn) {
  Random random;
  for (const NumberFormat format :
       {NumberFormat::kQ8, NumberFormat::kQ4, NumberFormat::kNF4, NumberFormat::kFP8}) {
    for (const size_t in : {1u, 31u, 33u, 257u, 1024u, 2049u}) {
      constexpr size_t kRows = 13, kOut = 37, kShift = 1;
      const std::vector<float> x = random.floats(kRows * in);
      const size_t stride = row_bytes(format, in, 3);
      std::vector<char> weight(kShift + kOut * stride, char{85});
      double largest = 0;
      for (size_t o = 0; o < kOut; ++o) {
        const std::vector<float> numbers = random.floats(in);
        scalar_backend().compress_row(format, numbers.data(), in, &weight[kShift + o * stride]);
        for (const float number : numbers) largest = std::max(largest, std::abs(double{number}));
      }
      MatmulArgs args;
      args.in = in;
      args.out = kOut;
      args.rows = kRows;
      args.format = format;
      args.weight_stride = stride;
      args.weight = &weight[kShift];
      const DeviceMemory on_device(*api_, stream_, weight.data(), weight.size());
      const double n = static_cast<double>(in);
      ASSERT_NO_FATAL_FAILURE(expect_product(args, x, on_device.as<char>() + kShift,
                                             4 * std::sqrt(n) + 8, 2 * largest * n + 1));
    }
  }
}

TEST_F(Cuda, AttentionMatchesTheReference) {
  Random random;
  constexpr size_t kHeads = 6, kKvHeads = 2, kRows = 5;
  for (const size_t head_dim : {7u, 32u, 80u, 128u}) {
    constexpr uint32_t kPositions[kRows] = {0, 31, 32, 77, 95};
    const size_t page_floats = 2 * kKvHeads * kKvPagePositions * head_dim;
    const std::vector<float> memory = random.floats(3 * page_floats);
    const std::vector<float> q = random.floats(kRows * kHeads * head_dim);
    std::vector<float> expected(q.size());
    const DeviceMemory device_memory = upload(memory), device_q = upload(q);
    const DeviceMemory device_out = upload(expected);
    const float* pages[3];
    const float* device_pages[3];
    for (size_t p = 0; p < 3; ++p) {
      pages[p] = &memory[p * page_floats];
      device_pages[p] = device_memory.as() + p * page_floats;
    }
    const DeviceMemory page_table(*api_, stream_, device_pages, sizeof(device_pages));
    AttentionRow rows[kRows], device_rows[kRows];
    for (size_t r = 0; r < kRows; ++r) {
      rows[r] = {pages, kPositions[r]};
      device_rows[r] = {page_table.as<const float*>(), kPositions[r]};
    }
    const DeviceMemory row_table(*api_, stream_, device_rows, sizeof(device_rows));
    AttentionArgs args;
    args.rows = kRows;
    args.heads = kHeads;
    args.kv_heads = kKvHeads;
    args.head_dim = args.value_dim = head_dim;
    args.q_stride = kHeads * head_dim;
    args.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    args.q = q.data();
    args.out = expected.data();
    args.attention_rows = rows;
    scalar_backend().attention(args, pool_);
    args.q = device_q.as();
    args.out = device_out.as();
    args.attention_rows = row_table.as<AttentionRow>();
    ASSERT_EQ(0, api_->attention(args, stream_));
    const double roundings = 4 * static_cast<double>(head_dim) + 64;
    ASSERT_NO_FATAL_FAILURE(expect_near(expected, device_out.floats(q.size()), roundings, 1));
  }
}

TEST_F(Cuda, NormMatchesTheReference) {
  Random random;
  for (const NormArgs::Kind kind : {NormArgs::Kind::kRms, NormArgs::Kind::kLayer})
    for (const NumberFormat format : kFormats) {
      for (const size_t width : {2u, 31u, 257u, 4096u}) {
        constexpr size_t kRows = 3;
        const std::vector<float> x = random.floats(kRows * width);
        const StoredNumbers weight = random.stored(format, width);
        std::vector<float> expected(x.size());
        NormArgs args;
        args.kind = kind;
        args.weight_offset = 1;
        args.x_stride = args.y_stride = width;
        args.format = format;
        args.rows = kRows;
        args.width = width;
        args.epsilon = 1e-5f;
        args.x = x.data();
        args.weight = weight.data();
        args.y = expected.data();
        scalar_backend().norm(args, pool_);
        const DeviceMemory device_x = upload(x), device_weight = upload(weight, 0);
        args.x = args.y = device_x.as();
        args.weight = device_weight.as<char>();
        args.y = device_x.as();
        ASSERT_EQ(0, api_->norm(args, stream_));
        // Normal numbers are below 2 or so for uniform inputs, weights below 2.
        const double roundings = 2 * std::sqrt(static_cast<double>(width)) + 6;
        ASSERT_NO_FATAL_FAILURE(expect_near(expected, device_x.floats(x.size()), roundings, 4));
      }
    }
}

TEST_F(Cuda, RopeMatchesTheReference) {
  Random random;
  constexpr size_t kRows = 4, kHeads = 3, kHeadDim = 20, kRotary = 14;
  const uint32_t positions[kRows] = {0, 1, 500, 100000};
  std::vector<float> expected = random.floats(kRows * kHeads * kHeadDim);
  const std::vector<float> frequencies = random.floats(kRotary / 2, 0, 1);
  const DeviceMemory x = upload(expected), device_frequencies = upload(frequencies);
  const DeviceMemory device_positions(*api_, stream_, positions, sizeof(positions));
  RopeArgs args;
  args.x_stride = kHeads * kHeadDim;
  args.rows = kRows;
  args.heads = kHeads;
  args.head_dim = kHeadDim;
  args.rotary_dim = kRotary;
  args.x = expected.data();
  args.positions = positions;
  args.inverse_frequencies = frequencies.data();
  scalar_backend().rope(args, pool_);
  args.x = x.as();
  args.positions = device_positions.as<uint32_t>();
  args.inverse_frequencies = device_frequencies.as();
  ASSERT_EQ(0, api_->rope(args, stream_));
  expect_near(expected, x.floats(expected.size()), 8, 2);
}

TEST_F(Cuda, ElementwiseMatchesTheReference) {
  Random random;
  constexpr size_t kRows = 3, kWidth = 1001, kCount = kRows * kWidth;
  std::vector<float> gate = random.floats(kCount, -20, 20);
  const std::vector<float> up = random.floats(kCount);
  const DeviceMemory device_gate = upload(gate), device_up = upload(up);
  MapArgs args;
  args.rows = kRows;
  args.width = args.x_stride = args.factor_stride = kWidth;
  args.x = gate.data();
  args.factor = up.data();
  scalar_backend().map(args, pool_);
  args.x = device_gate.as();
  args.factor = device_up.as();
  ASSERT_EQ(0, api_->map(args, stream_));
  ASSERT_NO_FATAL_FAILURE(expect_near(gate, device_gate.floats(kCount), 8, 20));

  for (const NumberFormat format : kFormats) {
    const StoredNumbers numbers = random.stored(format, kWidth);
    const DeviceMemory device_numbers = upload(numbers, 1);
    const char* first = device_numbers.as<char>() + bytes_per_element(format);
    std::vector<float> x = up, wide(kWidth);
    const DeviceMemory device_x = upload(x), device_wide = upload(wide);
    scalar_backend().add_bias(x.data(), kWidth, numbers.data(), format, kRows, kWidth, pool_);
    ASSERT_EQ(0, api_->add_bias(device_x.as(), kWidth, first, format, kRows, kWidth, stream_));
    EXPECT_TRUE(same_bits(x, device_x.floats(kCount)));
    scalar_backend().to_f32(numbers.data(), format, wide.data(), kWidth);
    ASSERT_EQ(0, api_->to_f32(first, format, device_wide.as(), kWidth, stream_));
    EXPECT_TRUE(same_bits(wide, device_wide.floats(kWidth)));
  }
}

// Figures, not limits: how fast one row's product reads the weights, beside a copy in the device.
TEST_F(Cuda, PrintsBandwidth) {
  CudaDevice device;
  ASSERT_EQ(0, api_->describe(0, &device));
  std::printf("device: %s, %.1f GiB, compute %d.%d\n", device.name,
              static_cast<double>(device.memory_bytes) / 0x1p30, device.compute_major,
              device.compute_minor);
  constexpr size_t kBytes = size_t{256} << 20, kIn = 4096, kOut = kBytes / 2 / kIn;
  constexpr int kTimes = 20;
  const std::vector<float> zeros(kBytes / sizeof(float));
  const DeviceMemory weight = upload(zeros), copy = upload(zeros);
  const DeviceMemory x = upload(std::vector<float>(kIn, 1)), y = upload(std::vector<float>(kOut));
  MatmulArgs args;
  args.x = x.as();
  args.x_stride = args.in = kIn;
  args.weight = weight.as<char>();
  args.format = NumberFormat::kBF16;
  args.y = y.as();
  args.y_stride = args.out = kOut;
  args.rows = 1;
  const auto rate = [&](const auto& once) {
    EXPECT_EQ(0, once());
    EXPECT_EQ(0, api_->synchronize(stream_));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kTimes; ++i) EXPECT_EQ(0, once());
    EXPECT_EQ(0, api_->synchronize(stream_));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return static_cast<double>(kBytes) * kTimes / taken.count() / 1e9;
  };
  std::printf("bf16 matmul of one row: %.0f GB/s read\n",
              rate([&] { return api_->matmul(args, stream_); }));
  std::printf("copy within the device: %.0f GB/s read and as much written\n",
              rate([&] { return api_->copy(copy.as(), weight.as(), kBytes, stream_); }));
}

}  // namespace
}  // namespace airllm::kernels::testing

// `airllm bench kernels`: the operations of the processor's backend, and between them what memory
// and arithmetic could do at most.
#pragma once

#include "base/json_fwd.h"
#include "engine/engine.h"
#include "engine/schedule/bench_job.h"
#include "kernels/backend.h"

namespace airllm::schedule {

// Runs on a thread of its own, with threads of its own as many as tools.threads. Of `backend`, one
// of the processor. The result is as airllm(1) describes it.
Result<Json> run_bench_kernels(const kernels::Backend& backend,
                               const engine::KernelBenchRequest& request, const BenchTools& tools,
                               engine::JobEvents& events, const std::shared_ptr<JobRecord>& record);

}  // namespace airllm::schedule

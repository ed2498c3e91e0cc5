// Preloaded into a program, moves its queue pairs to ERR from a thread of its own, as a NIC, a
// driver or an operator might: from there on the queue pair's owner sees what it would see then.
//
// Environment: QP_KILLER_EVERY_MS: how often; without it nothing happens. QP_KILLER_AFTER_MS:
// before the first time, from the first queue pair on; else as often. QP_KILLER_TIMES: how many
// times at most. QP_KILLER_WHICH: "one" (at random) or "all". QP_KILLER_SEED: for what is random.
#include <dlfcn.h>
#include <infiniband/verbs.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

namespace {

constexpr const char* kVerbsVersion = "IBVERBS_1.1";

long Number(const char* name, long otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtol(text, nullptr, 10);
}

template <typename Function>
Function* Next(const char* name) {
  void* const found = dlvsym(RTLD_NEXT, name, kVerbsVersion);
  if (found == nullptr) {
    std::fprintf(stderr, "qp_killer: libibverbs has no %s\n", name);
    std::abort();
  }
  return reinterpret_cast<Function*>(found);
}

class Killer {
 public:
  // For ever: its thread may still run while the process ends.
  static Killer& Instance() {
    static Killer* const killer = new Killer;
    return *killer;
  }

  void Add(ibv_qp* qp) {
    const std::lock_guard lock(mutex_);
    qps_.push_back(qp);
    if (every_ms_ <= 0 || running_) return;
    running_ = true;
    std::thread([this] { Run(); }).detach();
  }
  void Remove(ibv_qp* qp) {
    const std::lock_guard lock(mutex_);
    qps_.erase(std::remove(qps_.begin(), qps_.end(), qp), qps_.end());
  }

 private:
  void Run() {
    std::mt19937 random(static_cast<unsigned>(Number("QP_KILLER_SEED", 1)));
    const long times = Number("QP_KILLER_TIMES", 1'000'000);
    const char* const which = std::getenv("QP_KILLER_WHICH");
    const bool all = which != nullptr && std::strcmp(which, "all") == 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(Number("QP_KILLER_AFTER_MS", every_ms_)));
    for (long killed = 0; killed < times;) {
      if (Kill(all, random)) ++killed;
      std::this_thread::sleep_for(std::chrono::milliseconds(every_ms_));
    }
  }

  // Those that can send or receive: to kill what is being set up would prove something else. False
  // if there is none.
  bool Kill(bool all, std::mt19937& random) {
    const std::lock_guard lock(mutex_);
    std::vector<ibv_qp*> victims;
    for (ibv_qp* qp : qps_) {
      ibv_qp_attr attributes{};
      ibv_qp_init_attr init{};
      if (ibv_query_qp(qp, &attributes, IBV_QP_STATE, &init) != 0) continue;
      if (attributes.qp_state == IBV_QPS_RTS) victims.push_back(qp);
    }
    if (victims.empty()) return false;
    if (!all) victims = {victims[random() % victims.size()]};
    for (ibv_qp* qp : victims) {
      ibv_qp_attr attributes{};
      attributes.qp_state = IBV_QPS_ERR;
      const int error = ibv_modify_qp(qp, &attributes, IBV_QP_STATE);
      std::fprintf(stderr, "qp_killer: queue pair 0x%x: %s\n", qp->qp_num,
                   error == 0 ? "killed" : std::strerror(error));
    }
    return true;
  }

  const long every_ms_ = Number("QP_KILLER_EVERY_MS", 0);
  std::mutex mutex_;
  std::vector<ibv_qp*> qps_;
  bool running_ = false;
};

}  // namespace

extern "C" {

ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* qp_init_attr) {
  static auto* const next = Next<ibv_qp*(ibv_pd*, ibv_qp_init_attr*)>("ibv_create_qp");
  ibv_qp* const qp = next(pd, qp_init_attr);
  if (qp != nullptr) Killer::Instance().Add(qp);
  return qp;
}

int ibv_destroy_qp(ibv_qp* qp) {
  static auto* const next = Next<int(ibv_qp*)>("ibv_destroy_qp");
  Killer::Instance().Remove(qp);
  return next(qp);
}

}  // extern "C"

// simulate: runs migrations of many seeds, and says which seed breaks a rule.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <map>
#include <new>
#include <optional>
#include <string>

#include "base/check.h"
#include "tests/simulation/migration.h"

namespace godwit::simulation {
namespace {

// Runs with a killed host leave memory and files behind: a process does so many and no more.
constexpr uint64_t kSeedsAProcess = 50;

struct Options {
  std::optional<uint64_t> seed;
  bool tell = false;
  uint64_t first = 1;
  uint64_t seeds = 1000;
  std::map<std::string, Mistake> mistakes{{"none", Mistake::kNone},
                                          {"two-owners", Mistake::kTwoOwners},
                                          {"deaf-vmm", Mistake::kDeafVmm},
                                          {"short-stream", Mistake::kShortStream}};
  Mistake mistake = Mistake::kNone;
};

// What the processes that simulate tell the one that counts; in memory that they share.
struct Tally {
  uint64_t seed = 0;  // the one that runs, or ran when the process died
  uint64_t done = 0;
  uint64_t violations = 0;
  uint64_t handed_over = 0;
  uint64_t rolled_back = 0;
  uint64_t in_doubt = 0;
  uint64_t killed = 0;  // the source was; its target's outcome counts elsewhere
  uint64_t pre_copied = 0;
  uint64_t breaks = 0;
  uint64_t frame_faults = 0;
  uint64_t packets = 0;
  uint64_t out_of_order = 0;
  uint64_t remade = 0;
  uint64_t sent_again = 0;
  uint64_t duplicates = 0;
  uint64_t seals = 0;
  uint64_t sealed_again = 0;
  uint64_t turns = 0;
  double simulated_s = 0;
};

const char* OutcomeName(const std::optional<SessionOutcome>& outcome) {
  if (!outcome.has_value()) return "killed";
  switch (*outcome) {
    case SessionOutcome::kDone:
      return "done";
    case SessionOutcome::kRolledBack:
      return "rolled back";
    case SessionOutcome::kInDoubt:
      return "in doubt";
  }
  return "?";
}

void Count(const MigrationResult& result, Tally& tally) {
  ++tally.done;
  tally.handed_over += result.source == SessionOutcome::kDone ? 1U : 0U;
  tally.rolled_back += result.source == SessionOutcome::kRolledBack ? 1U : 0U;
  tally.in_doubt += result.source == SessionOutcome::kInDoubt ? 1U : 0U;
  tally.killed += result.source.has_value() ? 0U : 1U;
  tally.pre_copied += result.pre_copied ? 1U : 0U;
  tally.breaks += static_cast<uint64_t>(result.breaks);
  tally.frame_faults += result.frame_fault ? 1U : 0U;
  tally.packets += result.packets;
  tally.out_of_order += result.out_of_order_packets;
  tally.remade += result.lanes_remade;
  tally.sent_again += result.packets_sent_again;
  tally.duplicates += result.duplicates;
  tally.seals += result.seals;
  tally.sealed_again += result.sealed_again;
  tally.turns += result.turns;
  tally.simulated_s += std::chrono::duration<double>(result.time).count();
}

// The calm run, then the troubled one. Returns whether all was well.
bool RunSeed(uint64_t seed, Mistake mistake, Tally& tally) {
  tally.seed = seed;
  MigrationPlan plan = CalmPlanOf(seed);
  const MigrationResult calm = Simulate(plan, seed, mistake);
  Count(calm, tally);
  MigrationResult result = calm;
  if (calm.violation.empty()) {
    plan = TroubledPlanOf(seed, calm);
    result = Simulate(plan, seed, mistake);
    Count(result, tally);
  }
  if (result.violation.empty()) return true;
  ++tally.violations;
  std::printf("seed %" PRIu64 ": %s\n%s  again: simulate --seed %" PRIu64 "\n", seed,
              result.violation.c_str(), Describe(plan).c_str(), seed);
  std::fflush(stdout);
  return false;
}

void Print(const char* name, const MigrationResult& result) {
  std::printf("%s: source %s, target %s after %.3f ms and %" PRIu64
              " turns, fingerprint %016" PRIx64 "\n%s\n",
              name, OutcomeName(result.source), OutcomeName(result.target),
              std::chrono::duration<double, std::milli>(result.time).count(), result.turns,
              result.fingerprint, result.violation.empty() ? "ok" : result.violation.c_str());
  std::fflush(stdout);
}

// One seed, in this process: for a debugger.
int Replay(uint64_t seed, Mistake mistake, bool tell) {
  std::printf("seed %" PRIu64 "\n%s", seed, Describe(CalmPlanOf(seed)).c_str());
  std::fflush(stdout);
  const MigrationResult calm = Simulate(CalmPlanOf(seed), seed, mistake);
  Print("calm", calm);
  if (!calm.violation.empty()) ::_exit(1);
  const MigrationPlan plan = TroubledPlanOf(seed, calm);
  std::printf("%s", Describe(plan).c_str());
  std::fflush(stdout);
  const MigrationResult result = Simulate(plan, seed, mistake, tell);
  Print("troubled", result);
  ::_exit(result.violation.empty() ? 0 : 1);  // what killed hosts left is not a leak
}

int RunAll(const Options& options) {
  void* const shared =
      ::mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  GODWIT_CHECK(shared != MAP_FAILED);
  auto& tally = *new (shared) Tally();
  const auto began = std::chrono::steady_clock::now();
  const uint64_t end = options.first + options.seeds;
  uint64_t crashes = 0;
  for (uint64_t next = options.first; next < end;) {
    const uint64_t last = std::min(end, next + kSeedsAProcess);
    const pid_t child = ::fork();
    GODWIT_CHECK(child >= 0);
    if (child == 0) {
      bool well = true;
      for (uint64_t seed = next; seed < last; ++seed) well &= RunSeed(seed, options.mistake, tally);
      ::_exit(well ? 0 : 1);
    }
    int status = 0;
    GODWIT_CHECK(::waitpid(child, &status, 0) == child);
    next = last;
    if (WIFEXITED(status) && WEXITSTATUS(status) <= 1) continue;
    ++crashes;
    std::printf("seed %" PRIu64 ": the process died of %s %d\n  again: simulate --seed %" PRIu64
                "\n",
                tally.seed, WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), tally.seed);
    std::fflush(stdout);
    next = tally.seed + 1;
  }
  const double took_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("%" PRIu64 " seeds from %" PRIu64 " in %.1f s: %" PRIu64 " turns, %.0f simulated s\n",
              options.seeds, options.first, took_s, tally.turns, tally.simulated_s);
  std::printf("source: %" PRIu64 " handed over, %" PRIu64 " rolled back, %" PRIu64
              " in doubt, %" PRIu64 " killed; %" PRIu64 " with pre-copy\n",
              tally.handed_over, tally.rolled_back, tally.in_doubt, tally.killed, tally.pre_copied);
  std::printf("network: %" PRIu64 " packets, %" PRIu64 " out of order, %" PRIu64
              " connections broken, %" PRIu64 " frames damaged or repeated\n",
              tally.packets, tally.out_of_order, tally.breaks, tally.frame_faults);
  std::printf("lanes: %" PRIu64 " made again, %" PRIu64 " packets sent again, %" PRIu64
              " of them had come\n",
              tally.remade, tally.sent_again, tally.duplicates);
  std::printf("seals: %" PRIu64 ", %" PRIu64
              " of them on packets sent again, each with a nonce of its own\n",
              tally.seals, tally.sealed_again);
  std::printf("violations: %" PRIu64 "\n", tally.violations + crashes);
  return tally.violations + crashes == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Runs whole migrations on a simulated network and clock, one a seed.");
  app.add_option("--seed", options.seed, "replay this one, in this process");
  app.add_flag("--tell", options.tell, "with --seed: everything that the sessions tell");
  app.add_option("--first", options.first, "the first of many")->capture_default_str();
  app.add_option("--seeds", options.seeds, "how many")->capture_default_str();
  app.add_option("--mistake", options.mistake, "made on purpose: must be found")
      ->transform(CLI::CheckedTransformer(options.mistakes));
  CLI11_PARSE(app, argc, argv);
  GODWIT_CHECK(::signal(SIGPIPE, SIG_IGN) != SIG_ERR);  // see CheckBrokenPipe() in libc.cc
  return options.seed.has_value() ? Replay(*options.seed, options.mistake, options.tell)
                                  : RunAll(options);
}

}  // namespace
}  // namespace godwit::simulation

int main(int argc, char** argv) {
  // Nothing of ours throws, but memory can run out, and libraries have bugs.
  try {
    return godwit::simulation::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "simulate: unexpected: %s\n", error.what());
    return 1;
  }
}

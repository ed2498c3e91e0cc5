// Goal: each check tells a good host from one that lacks something, and then says what to run.
#include "tools/host_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

#include "base/units.h"

namespace godwit {
namespace {

using testing::HasSubstr;

HostFacts GoodHost() {
  HostFacts facts;
  facts.kernel_release = "6.12.9-amd64";
  facts.memlock_bytes = 8 * kGiB;
  facts.open_files_max = 1024;
  facts.meminfo =
      "MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\nHugePages_Free:      100\n"
      "Hugepagesize:       2048 kB\n";
  facts.cpu_flags = "fpu sse4_2 pclmulqdq aes vaes";
  facts.transparent_hugepages = "always [madvise] never";
  facts.congestion_control = "cubic";
  facts.tcp_wmem = "4096\t16384\t4194304";
  facts.iommu_groups = true;
  VfioDeviceInfo device;
  device.spec = "vfio:0000:01:00.1";
  device.flags = MigrationFlags{};
  facts.vfio = {device};
  RdmaPort port;
  port.active = true;
  port.gids.resize(1);
  RdmaDeviceInfo rdma;
  rdma.name = "mlx5_0";
  rdma.ports = {port};
  facts.rdma = {rdma};
  return facts;
}

HostCheck Check(const HostFacts& facts, const std::string& name) {
  for (const HostCheck& check : CheckHost(facts)) {
    if (check.name == name) return check;
  }
  ADD_FAILURE() << "no check " << name;
  return {};
}

// All others stay good.
void Expect(const HostFacts& facts, const std::string& name, Verdict verdict,
            const std::string& advice) {
  for (const HostCheck& check : CheckHost(facts)) {
    if (check.name != name) {
      EXPECT_EQ(check.verdict, Verdict::kGood) << check.name << ": " << check.found;
      continue;
    }
    EXPECT_EQ(check.verdict, verdict) << check.found;
    EXPECT_THAT(check.advice, HasSubstr(advice));
    EXPECT_THAT(check.advice, testing::Not(HasSubstr("\n")));
  }
}

TEST(HostChecksTest, AGoodHostNeedsNoAdvice) {
  std::set<std::string> names;
  for (const HostCheck& check : CheckHost(GoodHost())) {
    EXPECT_EQ(check.verdict, Verdict::kGood) << check.name << ": " << check.found;
    EXPECT_EQ(check.advice, "");
    EXPECT_NE(check.found, "");
    EXPECT_TRUE(names.insert(check.name).second) << check.name;
  }
  EXPECT_EQ(names.size(), 12U);
}

TEST(HostChecksTest, KernelsAreToldApartByTheirVersion) {
  HostFacts facts = GoodHost();
  for (const char* release : {"6.2.0", "6.10-rc1", "10.0.1-amd64"}) {
    facts.kernel_release = release;
    Expect(facts, "kernel", Verdict::kGood, "");
  }
  for (const char* release : {"5.18.0", "6.1.0-18-amd64"}) {
    facts.kernel_release = release;
    Expect(facts, "kernel", Verdict::kAdvice, "6.2");
  }
  for (const char* release : {"5.17.9", "4.19.0"}) {
    facts.kernel_release = release;
    Expect(facts, "kernel", Verdict::kMissing, "5.18");
  }
  for (const char* release : {"", "six"}) {
    facts.kernel_release = release;
    Expect(facts, "kernel", Verdict::kAdvice, "can't be told");
  }
}

TEST(HostChecksTest, IoUringSaysWhyItFails) {
  HostFacts facts = GoodHost();
  facts.io_uring_error = EPERM;
  Expect(facts, "io_uring", Verdict::kMissing, "io_uring_disabled=0");
  facts.io_uring_error = ENOSYS;
  Expect(facts, "io_uring", Verdict::kMissing, "CONFIG_IO_URING");
  facts.io_uring_error = ENOMEM;
  Expect(facts, "io_uring", Verdict::kMissing, "ulimit -l");
}

TEST(HostChecksTest, LockedMemoryHasToHoldTheArenaUnlessAnythingMayBeLocked) {
  HostFacts facts = GoodHost();
  facts.memlock_bytes = 64 * kKiB;
  Expect(facts, "memlock", Verdict::kMissing, "ulimit -l unlimited");
  facts.may_lock_any = true;
  Expect(facts, "memlock", Verdict::kGood, "");
  facts.may_lock_any = false;
  facts.memlock_bytes = 128 * kMiB;
  Expect(facts, "memlock", Verdict::kGood, "");
  facts.memlock_bytes.reset();
  Expect(facts, "memlock", Verdict::kGood, "");
}

TEST(HostChecksTest, EitherKindOfHugepagesWillDo) {
  HostFacts facts = GoodHost();
  facts.transparent_hugepages = "always madvise [never]";
  Expect(facts, "hugepages", Verdict::kGood, "");  // 200 MiB of the others
  facts.meminfo = "MemAvailable: 20000000 kB\nHugePages_Free: 0\nHugepagesize: 2048 kB\n";
  Expect(facts, "hugepages", Verdict::kAdvice, "vm.nr_hugepages=64");
  facts.transparent_hugepages = "[always] madvise never";
  Expect(facts, "hugepages", Verdict::kGood, "");
}

TEST(HostChecksTest, DevicesAndPortsThatAreOfNoUseAreNamed) {
  HostFacts facts = GoodHost();
  facts.vfio.clear();
  Expect(facts, "vfio", Verdict::kAdvice, "godwit devices");
  VfioDeviceInfo busy;
  busy.spec = "vfio:0000:02:00.0";
  busy.reason = "in use";
  facts.vfio = {busy};
  Expect(facts, "vfio", Verdict::kAdvice, "vfio:0000:02:00.0: in use");

  facts = GoodHost();
  facts.rdma[0].ports[0].gids.clear();
  Expect(facts, "rdma", Verdict::kAdvice, "ip address add");
  facts.rdma[0].ports[0].active = false;
  Expect(facts, "rdma", Verdict::kAdvice, "ip link set");
  facts.rdma[0].ports.clear();
  facts.rdma[0].error = "no permission";
  Expect(facts, "rdma", Verdict::kAdvice, "mlx5_0: no permission");
  facts.rdma.clear();
  Expect(facts, "rdma", Verdict::kAdvice, "rdma link add");
}

TEST(HostChecksTest, TheRestOfWhatCanBeBetter) {
  HostFacts facts = GoodHost();
  facts.congestion_control = "bbr";
  Expect(facts, "congestion control", Verdict::kAdvice, "cubic");
  facts = GoodHost();
  facts.tcp_wmem = "4096 16384 65536";
  Expect(facts, "tcp buffers", Verdict::kAdvice, "tcp_wmem");
  facts.tcp_wmem = "";
  Expect(facts, "tcp buffers", Verdict::kAdvice, "tcp_wmem");
  facts = GoodHost();
  facts.open_files_max = 256;
  Expect(facts, "open files", Verdict::kAdvice, "ulimit -n");
  facts = GoodHost();
  facts.cpu_flags = "fpu aesx";
  Expect(facts, "cpu", Verdict::kAdvice, "host-passthrough");
  facts = GoodHost();
  facts.iommu_groups = false;
  Expect(facts, "iommu", Verdict::kAdvice, "intel_iommu=on");
  facts = GoodHost();
  facts.meminfo = "MemAvailable: 1024 kB\nHugePages_Free: 100\nHugepagesize: 2048 kB\n";
  Expect(facts, "memory", Verdict::kAdvice, "buffer-budget.md");
  EXPECT_THAT(Check(facts, "memory").found, HasSubstr("1.00 MiB"));
}

// What this host's kernel says can be read at all.
TEST(HostChecksTest, FactsOfNothingGiveAdviceAndNoCrash) {
  for (const HostCheck& check : CheckHost(HostFacts())) {
    EXPECT_NE(check.name, "");
    EXPECT_EQ(check.advice.empty(), check.verdict == Verdict::kGood) << check.name;
  }
}

}  // namespace
}  // namespace godwit

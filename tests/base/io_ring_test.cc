// Goal: every operation completes exactly once, at its own handler, and waiting is bounded.
#include "base/io_ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/notifier.h"
#include "godwit/unique_fd.h"

namespace godwit {
namespace {

class Recorder final : public IoRing::Op {
 public:
  void OnComplete(int result) override { results.push_back(result); }
  std::vector<int> results;
};

class IoRingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto ring = IoRing::Create(8);
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    read_end_.Reset(fds[0]);
    write_end_.Reset(fds[1]);
  }
  void WaitUntilIdle() {
    for (int i = 0; i < 1000 && ring_->in_flight() > 0; ++i) {
      ring_->Wait(std::chrono::milliseconds(10));
    }
    ASSERT_EQ(ring_->in_flight(), 0U);
  }

  std::unique_ptr<IoRing> ring_;
  UniqueFd read_end_, write_end_;
};

TEST_F(IoRingTest, AHardLinkedChainOfReadsGoesOnAfterAShortRead) {
  ASSERT_EQ(::write(write_end_.get(), "abc", 3), 3);
  char bytes[2][8] = {};
  Recorder recorder;
  ring_->Reserve(2);
  for (int i = 0; i < 2; ++i) {
    io_uring_sqe* sqe = ring_->NextSqe();
    io_uring_prep_read(sqe, read_end_.get(), bytes[i], 8, static_cast<uint64_t>(-1));
    if (i == 0) sqe->flags |= IOSQE_IO_HARDLINK;
    ring_->Attach(sqe, &recorder);
  }
  while (recorder.results.empty()) ring_->Wait(std::chrono::milliseconds(100));
  ASSERT_EQ(::write(write_end_.get(), "defg", 4), 4);
  WaitUntilIdle();
  EXPECT_EQ(recorder.results, (std::vector<int>{3, 4}));
  EXPECT_STREQ(bytes[0], "abc");
  EXPECT_STREQ(bytes[1], "defg");
}

TEST_F(IoRingTest, ACancelledOperationStillCompletes) {
  char byte = 0;
  Recorder recorder;
  io_uring_sqe* sqe = ring_->NextSqe();
  io_uring_prep_read(sqe, read_end_.get(), &byte, 1, static_cast<uint64_t>(-1));
  ring_->Attach(sqe, &recorder);
  ring_->Wait(std::chrono::nanoseconds(0));
  EXPECT_TRUE(recorder.results.empty());
  ring_->Cancel(&recorder);
  WaitUntilIdle();
  EXPECT_EQ(recorder.results, std::vector<int>{-ECANCELED});
}

TEST_F(IoRingTest, WaitingForNothingEndsWithTheTimeout) {
  EXPECT_EQ(ring_->Wait(std::chrono::milliseconds(1)), 0U);
  EXPECT_EQ(ring_->Wait(std::chrono::nanoseconds(0)), 0U);
}

TEST_F(IoRingTest, MoreOperationsThanEntriesAreSubmittedInBatches) {
  Recorder recorder;
  for (int i = 0; i < 100; ++i) {
    io_uring_sqe* sqe = ring_->NextSqe();
    io_uring_prep_nop(sqe);
    ring_->Attach(sqe, &recorder);
  }
  WaitUntilIdle();
  EXPECT_EQ(recorder.results, std::vector<int>(100, 0));
}

TEST_F(IoRingTest, ReadsIntoTheRegisteredArena) {
  auto arena = Arena::Create(2, 4096);
  ASSERT_TRUE(arena.ok());
  const absl::Status registered = ring_->RegisterArena(**arena);
  if (!registered.ok()) GTEST_SKIP() << "no fixed buffers on this machine: " << registered;
  ASSERT_EQ(::write(write_end_.get(), "xyz", 3), 3);
  const Buffer buffer = (*arena)->TryAcquire();
  Recorder recorder;
  io_uring_sqe* sqe = ring_->NextSqe();
  io_uring_prep_read_fixed(sqe, read_end_.get(), buffer.payload(), 4096, static_cast<uint64_t>(-1),
                           0);
  ring_->Attach(sqe, &recorder);
  WaitUntilIdle();
  EXPECT_EQ(recorder.results, std::vector<int>{3});
  EXPECT_EQ(std::memcmp(buffer.payload(), "xyz", 3), 0);
}

TEST(NotifierTest, ManyNotificationsMakeOneWakeUp) {
  auto notifier = Notifier::Create();
  ASSERT_TRUE(notifier.ok());
  notifier->Notify();
  notifier->Notify();
  uint64_t count = 0;
  ASSERT_EQ(::read(notifier->fd(), &count, sizeof(count)), 8);
  EXPECT_EQ(count, 2U);
  notifier->Clear();  // nothing there: does not block
}

}  // namespace
}  // namespace godwit

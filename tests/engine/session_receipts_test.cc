// Goal: receipts that a target holds are held until it is time for them, whatever else its control
// thread wakes up for; and before the end the source hears that all is loaded.
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "tests/engine/on_one_processor.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/session_world.h"
#include "tests/engine/wire_image.h"
#include "vfio/soft_content.h"

namespace godwit {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kPackets = 64;
constexpr size_t kPacketBytes = 8;
constexpr char kSpec[] = "soft:size=512,seed=7";
constexpr char kConfig[] = "godwit-soft 1 size=512 seed=7";
constexpr size_t kHeldPackets = 16;
// Receipts are held for longer than that; a machine that is slower proves nothing.
constexpr milliseconds kSoon{60};

// A source whose packets the test sends one by one.
class HeldReceiptsTest : public testing::Test {
 protected:
  HeldReceiptsTest() {
    stream_.resize(kPackets * kPacketBytes);
    SoftContent(7).Fill(
        0, absl::MakeSpan(reinterpret_cast<std::byte*>(stream_.data()), stream_.size()));
  }
  void Begin() {
    source_.emplace(target_.Port());
    ASSERT_TRUE(source_->OpenLanes());
    control::ControlMessage stopping;
    stopping.mutable_stopping()->set_receipt_packets(kHeldPackets);
    source_->channel.Send(stopping);
  }
  void SendPacket() {
    const size_t at = sent_ * kPacketBytes;
    wire::Frame frame = wire::DataFrame(0, static_cast<uint32_t>(sent_), stream_.substr(0, at),
                                        stream_.substr(at, kPacketBytes));
    frame.lane_sequence = sent_++;
    source_->SendFrame(0, frame);
    while (target_.session().statistics().lanes[0].packets < sent_) std::this_thread::yield();
  }
  // How many packets the next receipt says have come, if there is one so soon.
  std::optional<uint64_t> ToldWithin(milliseconds time) {
    const auto message = source_->channel.ReceiveUntil(steady_clock::now() + time);
    if (!message.has_value()) return std::nullopt;
    EXPECT_TRUE(message->has_receipts());
    return message->receipts().lane_packets(0);
  }
  void WakeTheControlThread() {
    control::ControlMessage ping;
    ping.mutable_ping();
    source_->channel.Send(ping);
    std::this_thread::sleep_for(milliseconds(1));
  }
  // Until no receipt is held any more.
  void Settle() {
    while (ToldWithin(milliseconds(200)).has_value()) continue;
  }
  void End() {
    while (sent_ < kPackets) SendPacket();
    wire::Frame config = wire::ConfigFrame(0, kPackets, stream_, kConfig);
    config.lane_sequence = sent_;
    source_->SendFrame(0, config);
    control::Receipts last;
    auto message = source_->channel.Receive();
    while (message.has_value() && message->has_receipts()) {
      last = message->receipts();
      message = source_->channel.Receive();
    }
    ASSERT_TRUE(message.has_value() && message->has_loaded());
    EXPECT_EQ(last.device_packets(0), kPackets + 1);
    control::ControlMessage commit;
    commit.mutable_commit();
    source_->channel.Send(commit);
    message = source_->channel.Receive();
    EXPECT_TRUE(message.has_value() && message->has_done());
    control::ControlMessage forget;
    forget.mutable_forget();
    source_->channel.Send(forget);
    EXPECT_EQ(target_.Report().outcome, SessionOutcome::kDone) << target_.Report().status;
  }

  const OnOneProcessor few_processors_;
  const Devices devices_{{kSpec}, DeviceRole::kTarget};
  RunningTarget target_{devices_.pointers(), RunningTarget::DefaultOptions()};
  std::optional<RawSource> source_;
  std::string stream_;
  uint64_t sent_ = 0;
};

TEST_F(HeldReceiptsTest, AreNotSentBecauseTheControlThreadWokeUp) {
  const Watchdog watchdog("a target that holds receipts");
  Begin();
  SendPacket();
  ASSERT_TRUE(ToldWithin(kSessionCap).has_value()) << "of a lane's first it tells at once";
  Settle();
  bool shown = false;
  while (!shown && sent_ + 3 < kPackets) {
    const auto began = steady_clock::now();
    for (int packet = 0; packet < 3; ++packet) SendPacket();
    for (int times = 0; times < 5; ++times) WakeTheControlThread();
    const bool told = ToldWithin(milliseconds(2)).has_value();
    shown = !told && steady_clock::now() - began < kSoon;
    if (shown) {
      EXPECT_EQ(ToldWithin(kSessionCap), sent_);
    }
    Settle();
  }
  EXPECT_TRUE(shown);
  End();
}

}  // namespace
}  // namespace godwit

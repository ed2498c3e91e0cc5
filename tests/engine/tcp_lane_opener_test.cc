// Goal: lanes are connected again when they are lost before they carry anything, the first one too;
// where there is nobody that is said at once.
#include "engine/tcp_lane_opener.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

constexpr std::chrono::seconds kTimeout{10};

Deadline In10s() { return std::chrono::steady_clock::now() + kTimeout; }

TcpLaneOpener OpenerTo(uint16_t port) {
  const std::string session_id(kSessionIdBytes, 's');
  return TcpLaneOpener({"127.0.0.1", port}, LaneGreeting(session_id, std::nullopt), kTimeout, -1);
}

TEST(TcpLaneOpenerTest, AFirstLaneThatIsResetAsSoonAsItConnectsIsConnectedAgain) {
  const auto listener = ListenTcp({"127.0.0.1", 0});
  ASSERT_TRUE(listener.ok()) << listener.status();
  const uint16_t port = LocalPort(listener->get()).value();
  // The reset comes now before the preface is written and now after it.
  for (int round = 0; round < 100; ++round) {
    std::atomic<bool> came_again{false};
    std::thread target([&] {
      {
        const auto first = AcceptTcp(listener->get(), In10s());
        ASSERT_TRUE(first.ok()) << first.status();
        const linger at_once = {1, 0};
        ASSERT_EQ(::setsockopt(first->get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
      }
      const auto second = AcceptTcp(listener->get(), In10s());
      EXPECT_TRUE(second.ok()) << second.status();
      came_again = true;
    });
    TcpLaneOpener opener = OpenerTo(port);
    absl::Status opened = opener.Connect();
    const Deadline give_up = In10s();
    while (opened.ok() && !came_again && std::chrono::steady_clock::now() < give_up) {
      opened = opener.Tend([] {});
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(opened.ok()) << "round " << round << ": " << opened;
    // A test that fails must not wait.
    if (!came_again) (void)ConnectTcp({"127.0.0.1", port}, kTimeout);
    target.join();
    ASSERT_TRUE(came_again) << round;
  }
}

TEST(TcpLaneOpenerTest, WhereThereIsNobodyThatIsSaidAtOnce) {
  // Bound, so that nobody else gets the port, and not listening.
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  TcpLaneOpener opener = OpenerTo(LocalPort(socket.get()).value());
  EXPECT_TRUE(absl::IsUnavailable(opener.Connect()));
}

}  // namespace
}  // namespace godwit

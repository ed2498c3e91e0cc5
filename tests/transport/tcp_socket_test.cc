// Goal: an address is understood or refused in words that help, and no call outlives its deadline.
#include "transport/tcp/tcp_socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/processors.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

Deadline In(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }
constexpr std::chrono::seconds kLong{60};

struct SocketPair {
  UniqueFd near, far;
};

SocketPair ConnectedTo(const std::string& host) {
  const auto listener = ListenTcp({host, 0});
  EXPECT_TRUE(listener.ok()) << listener.status();
  const auto port = LocalPort(listener->get());
  EXPECT_TRUE(port.ok()) << port.status();
  auto near = ConnectTcp({host, *port}, kLong);
  EXPECT_TRUE(near.ok()) << near.status();
  auto far = AcceptTcp(listener->get(), In(kLong));
  EXPECT_TRUE(far.ok()) << far.status();
  return {*std::move(near), *std::move(far)};
}

bool HasIpv6Loopback() { return ListenTcp({"::1", 0}).ok(); }

std::string CongestionControl(int socket) {
  char name[16] = {};
  socklen_t length = sizeof(name);
  EXPECT_EQ(::getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name, &length), 0);
  return name;
}

TEST(TcpAddressTest, UnderstandsItsThreeForms) {
  const struct {
    const char* text;
    const char* host;
    uint16_t port;
  } kForms[] = {{"10.0.0.2:7471", "10.0.0.2", 7471},
                {"[::1]:7471", "::1", 7471},
                {"[fe80::1%eth0]:1", "fe80::1%eth0", 1},
                {"target.example:65535", "target.example", 65535},
                {"0.0.0.0:0", "0.0.0.0", 0}};
  for (const auto& form : kForms) {
    const auto address = ParseTcpAddress(form.text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->host, form.host);
    EXPECT_EQ(address->port, form.port);
    EXPECT_EQ(address->ToString(), form.text);
  }
}

TEST(TcpAddressTest, NamesTheTextAndTheFormWhereItRefuses) {
  for (const char* text :
       {"", ":", "7471", "10.0.0.2", "10.0.0.2:", ":7471", "[]:7471", "::1:7471", "[::1]",
        "[::1:7471", "::1]:7471", "10.0.0.2:65536", "10.0.0.2:-1", "10.0.0.2:+1", "10.0.0.2: 1",
        "10.0.0.2:7471x", "10.0.0.2:99999999999999999999", "a:b:1"}) {
    const auto address = ParseTcpAddress(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(address.status().message()),
                AllOf(StartsWith(absl::StrCat("\"", text, "\"")), HasSubstr("ADDR:PORT")));
  }
}

TEST(TcpSocketTest, ConnectsOverBothFamiliesInBlockingMode) {
  for (const std::string host : {"127.0.0.1", "::1"}) {
    if (host == "::1" && !HasIpv6Loopback()) continue;
    const SocketPair pair = ConnectedTo(host);
    EXPECT_EQ(::fcntl(pair.near.get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_EQ(::fcntl(pair.far.get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(pair.near.get(), F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(::fcntl(pair.far.get(), F_GETFD) & FD_CLOEXEC, 0);
    const auto port = LocalPort(pair.far.get());
    ASSERT_TRUE(port.ok());
    EXPECT_EQ(PeerText(pair.near.get()), (TcpAddress{host, *port}.ToString()));
  }
}

TEST(TcpSocketTest, TriesEveryAddressOfAName) {
  const auto listener = ListenTcp({"127.0.0.1", 0});  // where localhost is ::1 first, that refuses
  ASSERT_TRUE(listener.ok());
  const auto connected = ConnectTcp({"localhost", *LocalPort(listener->get())}, kLong);
  if (absl::IsNotFound(connected.status())) {
    GTEST_SKIP() << "no name to try it with on this machine: " << connected.status();
  }
  EXPECT_TRUE(connected.ok()) << connected.status();
}

TEST(TcpSocketTest, AClosedPortSaysWhatToDo) {
  uint16_t port = 0;
  {
    const auto listener = ListenTcp({"127.0.0.1", 0});
    ASSERT_TRUE(listener.ok());
    port = *LocalPort(listener->get());
  }
  const auto connected = ConnectTcp({"127.0.0.1", port}, kLong);
  EXPECT_EQ(connected.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(connected.status().message(),
            absl::StrCat("can't connect to 127.0.0.1:", port,
                         ": Connection refused; is `godwit receive` running there?"));
}

TEST(TcpSocketTest, AnAddressThatDoesNotAnswerEndsWithTheTimeout) {
  // A full backlog of one: further handshakes are dropped.
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&local), sizeof(local)), 0);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  const TcpAddress address{"127.0.0.1", *LocalPort(listener.get())};
  std::vector<UniqueFd> filling;
  absl::Status last;
  for (int i = 0; i < 10 && last.ok(); ++i) {
    auto connected = ConnectTcp(address, std::chrono::milliseconds(50));
    last = connected.status();
    if (connected.ok()) filling.push_back(*std::move(connected));
  }
  EXPECT_EQ(last.code(), absl::StatusCode::kDeadlineExceeded) << last;
  EXPECT_THAT(std::string(last.message()),
              AllOf(HasSubstr(address.ToString()), HasSubstr("firewall")));
}

TEST(TcpSocketTest, RefusesToConnectToPortZeroAndToAnUnknownHost) {
  EXPECT_EQ(ConnectTcp({"127.0.0.1", 0}, kLong).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::string too_long(64, 'x');  // for a label: no name server is asked
  const auto unknown = ConnectTcp({too_long, 1}, kLong);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound) << unknown.status();
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr(too_long));
}

TEST(TcpSocketTest, APortInUseIsNamed) {
  const auto listener = ListenTcp({"127.0.0.1", 0});
  ASSERT_TRUE(listener.ok());
  const TcpAddress address{"127.0.0.1", *LocalPort(listener->get())};
  const auto second = ListenTcp(address);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr(address.ToString()), HasSubstr("Address already in use")));
}

TEST(TcpSocketTest, AcceptEndsWithItsDeadline) {
  const auto listener = ListenTcp({"127.0.0.1", 0});
  ASSERT_TRUE(listener.ok());
  for (const int ms : {-1000, 0, 1}) {
    EXPECT_EQ(AcceptTcp(listener->get(), In(std::chrono::milliseconds(ms))).status().code(),
              absl::StatusCode::kDeadlineExceeded);
  }
}

TEST(TcpSocketTest, TunesALoopbackConnectionForSpeed) {
  const SocketPair pair = ConnectedTo("127.0.0.1");
  TuneLaneSocket(pair.near.get());
  int no_delay = 0;
  socklen_t length = sizeof(no_delay);
  ASSERT_EQ(::getsockopt(pair.near.get(), IPPROTO_TCP, TCP_NODELAY, &no_delay, &length), 0);
  EXPECT_NE(no_delay, 0);
  EXPECT_THAT(CongestionControl(pair.near.get()), AnyOf("cubic", "reno"));
  uint64_t pacing_max = ~uint64_t{0};  // not paced
  length = sizeof(pacing_max);
  ASSERT_EQ(::getsockopt(pair.near.get(), SOL_SOCKET, SO_MAX_PACING_RATE, &pacing_max, &length), 0);
  const bool several_processors = ProcessorsToRunOn() > 1;
  EXPECT_EQ(pacing_max != ~uint64_t{0}, several_processors);
  EXPECT_GT(pacing_max, uint64_t{1} << 40) << "a bound that a lane could reach";
  int unsent_max = 0;
  length = sizeof(unsent_max);
  ASSERT_EQ(::getsockopt(pair.near.get(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, &length), 0);
  EXPECT_EQ(unsent_max == 1 << 20, several_processors);
}

TEST(TcpSocketTest, TuningALocalSocketDoesNoHarm) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
  const UniqueFd near(fds[0]), far(fds[1]);
  TuneLaneSocket(near.get());
  EXPECT_EQ(::fcntl(near.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(PeerText(near.get()), "a local socket");
}

TEST(TcpSocketTest, WritesAndReadsMoreThanTheSocketBuffersHold) {
  const SocketPair pair = ConnectedTo("127.0.0.1");
  std::vector<std::byte> out(size_t{16} << 20);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i * 7 + i / 4096);
  absl::Status written;
  std::thread writer([&] { written = WriteAll(pair.near.get(), out, In(kLong)); });
  std::vector<std::byte> in(out.size());
  const absl::Status read = ReadExactly(pair.far.get(), absl::MakeSpan(in), In(kLong));
  writer.join();
  EXPECT_EQ(written, absl::OkStatus());
  EXPECT_EQ(read, absl::OkStatus());
  EXPECT_TRUE(in == out);
}

TEST(TcpSocketTest, SaysHowFarAReadOrAWriteCame) {
  SocketPair pair = ConnectedTo("127.0.0.1");
  std::byte bytes[8] = {};
  ASSERT_TRUE(WriteAll(pair.near.get(), absl::MakeSpan(bytes, 3), In(kLong)).ok());
  const absl::Status silent =
      ReadExactly(pair.far.get(), absl::MakeSpan(bytes), In(std::chrono::milliseconds(100)));
  EXPECT_EQ(silent.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(silent.message()), HasSubstr("3 of 8 bytes"));

  ASSERT_TRUE(WriteAll(pair.near.get(), absl::MakeSpan(bytes, 5), In(kLong)).ok());
  pair.near.Reset();
  const absl::Status cut = ReadExactly(pair.far.get(), absl::MakeSpan(bytes), In(kLong));
  EXPECT_EQ(cut.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(cut.message()), HasSubstr("5 of 8 bytes"));
}

TEST(TcpSocketTest, AWriteToAPeerThatDoesNotReadEndsWithItsDeadline) {
  const SocketPair pair = ConnectedTo("127.0.0.1");
  const std::vector<std::byte> bytes(size_t{64} << 20);
  EXPECT_EQ(WriteAll(pair.near.get(), bytes, In(std::chrono::milliseconds(100))).code(),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace godwit

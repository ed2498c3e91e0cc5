// Goal: the config payload is what docs/config-payload.md says; whatever a peer sends is decoded to
// something inside all bounds or refused with what is wrong.
#include "vfio/pci_config.h"

#include <linux/pci_regs.h>

#include <random>

#include "base/crc32c.h"
#include "tests/vfio/fake_pci.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

PciConfig Whole() {
  FakePci pci;
  pci.Put(FakePci::kMsix + PCI_MSIX_FLAGS, (FakePci::kVectors - 1) | PCI_MSIX_FLAGS_ENABLE, 2);
  return {.space = pci.space, .msix_table = std::string(FakePci::kTableBytes, 'v')};
}

void PutBig(std::string& bytes, size_t offset, uint32_t value, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    bytes.at(offset + i) = static_cast<char>(value >> (8 * (count - 1 - i)));
  }
}

// As a peer that means harm would.
std::string Sealed(std::string bytes) {
  const auto crc = [](uint32_t before, absl::string_view part) {
    return Crc32cExtend(
        before, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(part.data()), part.size()));
  };
  const absl::string_view view(bytes);
  PutBig(bytes, 28, crc(crc(kCrc32cOfNothing, view.substr(0, 28)), view.substr(32)), 4);
  return bytes;
}

std::string Complaint(const std::string& bytes, absl::StatusCode code) {
  const absl::Status refusal = DecodePciConfig(bytes).status();
  EXPECT_EQ(refusal.code(), code) << refusal;
  return std::string(refusal.message());
}

TEST(PciConfigTest, TheHeaderIsAsDocumented) {
  const std::string bytes = EncodePciConfig(Whole());
  const unsigned char expected[28] = {'G',  'P',  'C',  'I',  0, 1, 0x15, 0xb3, 0x10, 0x1e,
                                      0x15, 0xb3, 0x00, 0x58, 0, 2, 0x00, 0x00, 0x01, 0x00,
                                      3,    1,    0,    8,    0, 0, 0,    0};
  EXPECT_EQ(bytes.substr(0, 28), std::string(reinterpret_cast<const char*>(expected), 28));
  EXPECT_EQ(bytes.size(), 32 + 256 + 8 * 16);
  EXPECT_EQ(bytes, Sealed(bytes));
}

TEST(PciConfigTest, WhatWasEncodedIsDecoded) {
  FakePci small(64);
  FakePci odd(255);  // as mtty's
  FakePci large(4096);
  const PciConfig cases[] = {
      Whole(), {small.space, ""}, {odd.space, ""}, {large.space, ""}, {Whole().space, ""}};
  for (const PciConfig& config : cases) {
    const auto decoded = DecodePciConfig(EncodePciConfig(config));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->space, config.space);
    EXPECT_EQ(decoded->msix_table, config.msix_table);
  }
}

TEST(PciConfigTest, ADamagedByteAnywhereIsRefused) {
  const std::string bytes = EncodePciConfig(Whole());
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 7}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      EXPECT_FALSE(DecodePciConfig(damaged).ok()) << i;
    }
  }
}

TEST(PciConfigTest, AnyOtherLengthIsRefused) {
  const std::string bytes = EncodePciConfig(Whole());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(DecodePciConfig(bytes.substr(0, length)).ok()) << length;
    if (length >= 32) {
      EXPECT_FALSE(DecodePciConfig(Sealed(bytes.substr(0, length))).ok()) << length;
    }
  }
  EXPECT_THAT(Complaint(bytes.substr(0, 31), absl::StatusCode::kDataLoss),
              HasSubstr("31 bytes, its header has 32"));
  EXPECT_THAT(Complaint(Sealed(bytes + "x"), absl::StatusCode::kDataLoss),
              HasSubstr("417 bytes, its header says 416"));
}

TEST(PciConfigTest, EachLieOfTheHeaderIsRefused) {
  const std::string bytes = EncodePciConfig(Whole());
  struct Case {
    size_t offset;
    uint32_t value;
    size_t count;
    absl::StatusCode code;
    const char* complaint;
  };
  const Case cases[] = {
      {0, 0x12345678, 4, absl::StatusCode::kDataLoss, "it begins with 0x12345678"},
      {4, 2, 2, absl::StatusCode::kUnimplemented, "version 2, this godwit knows 1"},
      {4, 0, 2, absl::StatusCode::kUnimplemented, "version 0"},
      {6, 0x8086, 2, absl::StatusCode::kDataLoss, "disagree"},
      {14, 1, 1, absl::StatusCode::kUnimplemented, "reserved"},
      {15, 0x030000, 3, absl::StatusCode::kDataLoss, "disagree"},
      {18, 0, 2, absl::StatusCode::kDataLoss, "0 bytes of config space"},
      {18, 63, 2, absl::StatusCode::kDataLoss, "63 bytes of config space"},
      {18, 4097, 2, absl::StatusCode::kDataLoss, "4097 bytes of config space"},
      {18, 0xffff, 2, absl::StatusCode::kDataLoss, "65535 bytes of config space"},
      {18, 384, 2, absl::StatusCode::kDataLoss, "its header says"},
      {20, 2, 1, absl::StatusCode::kDataLoss, "disagree"},
      {20, 255, 1, absl::StatusCode::kDataLoss, "disagree"},
      {21, 3, 1, absl::StatusCode::kUnimplemented, "unknown flags (0x3)"},
      {22, 0, 2, absl::StatusCode::kDataLoss, "its header says"},
      {22, 0xffff, 2, absl::StatusCode::kDataLoss, "65535 vectors"},
      {22, 2048, 2, absl::StatusCode::kDataLoss, "its header says"},
      {24, 1, 4, absl::StatusCode::kUnimplemented, "reserved"},
  };
  for (const Case& lie : cases) {
    std::string lying = bytes;
    PutBig(lying, lie.offset, lie.value, lie.count);
    EXPECT_THAT(Complaint(Sealed(lying), lie.code), HasSubstr(lie.complaint)) << lie.offset;
  }
}

// Bytes of config space with a capability pointer to `first`.
std::string SpaceWithList(size_t first) {
  FakePci pci(256);
  pci.space.replace(64, 192, 192, '\0');
  pci.Put(PCI_CAPABILITY_LIST, static_cast<uint32_t>(first), 1);
  return pci.space;
}

void PutCapability(std::string& space, size_t at, int id, size_t next) {
  space[at] = static_cast<char>(id);
  space[at + 1] = static_cast<char>(next);
}

TEST(PciSpaceTest, ACapabilityListThatLoopsEnds) {
  std::string to_itself = SpaceWithList(0x40);
  PutCapability(to_itself, 0x40, PCI_CAP_ID_VNDR, 0x40);
  EXPECT_EQ(FindPciLayout(to_itself), PciLayout());

  std::string in_a_ring = SpaceWithList(0x40);
  PutCapability(in_a_ring, 0x40, PCI_CAP_ID_VNDR, 0x80);
  PutCapability(in_a_ring, 0x80, PCI_CAP_ID_MSIX, 0x43);  // the two low bits don't count
  EXPECT_EQ(FindPciLayout(in_a_ring).msix, 0x80u);
  EXPECT_EQ(FindPciLayout(in_a_ring).msix_vectors, 1u);
}

TEST(PciSpaceTest, APointerOutsideTheCapabilityAreaEndsTheList) {
  for (const size_t pointer : {size_t{0x00}, size_t{0x04}, size_t{0x3c}}) {
    std::string space = SpaceWithList(pointer);
    PutCapability(space, pointer, PCI_CAP_ID_MSI, 0);
    EXPECT_EQ(FindPciLayout(space).msi, 0u) << pointer;
  }
  std::string small = SpaceWithList(0xf0).substr(0, 65);
  EXPECT_EQ(FindPciLayout(small), PciLayout());
  small[PCI_CAPABILITY_LIST] = 0x40;  // only one byte of it is there
  EXPECT_EQ(FindPciLayout(small), PciLayout());
}

TEST(PciSpaceTest, ACapabilityThatPassesTheEndCountsAsAbsent) {
  for (const int id : {PCI_CAP_ID_EXP, PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX}) {
    std::string space = SpaceWithList(0xfc);
    PutCapability(space, 0xfc, id, 0);
    space[0xfe] = space[0xff] = '\xff';
    EXPECT_EQ(FindPciLayout(space), PciLayout()) << id;
  }
  std::string odd = SpaceWithList(0xfc).substr(0, 255);
  PutCapability(odd, 0xfc, PCI_CAP_ID_MSIX, 0);
  EXPECT_EQ(FindPciLayout(odd), PciLayout());
}

TEST(PciSpaceTest, NoFlagNoList) {
  FakePci pci;
  pci.Put(PCI_STATUS, 0, 2);
  EXPECT_EQ(FindPciLayout(pci.space), PciLayout());
}

TEST(PciSpaceTest, AnyBytesAreTakenAndEveryFieldIsInside) {
  constexpr uint32_t kSeed = 20;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937 random(kSeed);
  for (int round = 0; round < 20'000; ++round) {
    std::string space(round % 2 == 0 ? 64 + random() % 193 : 256, '\0');
    for (char& byte : space) byte = static_cast<char>(random());
    space[PCI_STATUS] = PCI_STATUS_CAP_LIST;
    // Few ids, so that lists are long and full of what is restored.
    for (size_t at = 64; at + 1 < space.size(); at += 4) {
      constexpr int kIds[] = {PCI_CAP_ID_EXP, PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX, PCI_CAP_ID_VNDR};
      space[at] = static_cast<char>(kIds[random() % 4]);
    }
    for (const PciField& field : RestoredFields(space)) {
      ASSERT_LE(field.offset + field.bytes, space.size());
    }
    const PciLayout layout = FindPciLayout(space);
    ASSERT_LE(layout.msix_vectors, kMsixVectorsMax);
    if (layout.msix != 0) FindMsixTable(space);
    ASSERT_LE(FindPciInterrupts(space).vectors, kMsixVectorsMax);
    ASSERT_TRUE(DecodePciConfig(EncodePciConfig({space, ""})).ok());
  }
}

TEST(PciSpaceTest, InterruptsAreWhatTheEnableBitsSay) {
  FakePci pci;
  EXPECT_EQ(FindPciInterrupts(pci.space).mode, PciInterruptMode::kNone);
  pci.Put(PCI_COMMAND, 0, 2);
  EXPECT_EQ(FindPciInterrupts(pci.space).mode, PciInterruptMode::kIntx);
  EXPECT_EQ(FindPciInterrupts(pci.space).vectors, 1);
  pci.Put(FakePci::kMsi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | 2 << 4, 2);
  EXPECT_EQ(FindPciInterrupts(pci.space).mode, PciInterruptMode::kMsi);
  EXPECT_EQ(FindPciInterrupts(pci.space).vectors, 4);
  pci.Put(FakePci::kMsi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | 7 << 4, 2);
  EXPECT_EQ(FindPciInterrupts(pci.space).vectors, 32);
  pci.Put(FakePci::kMsix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | 7, 2);
  EXPECT_EQ(FindPciInterrupts(pci.space).mode, PciInterruptMode::kMsix);
  EXPECT_EQ(FindPciInterrupts(pci.space).vectors, 8);
}

TEST(PciSpaceTest, AnotherDeviceIsRefusedAndBothAreNamed) {
  const FakePci target;
  const auto refusal = [&](const FakePci& source) {
    const absl::Status status = CheckSameDevice(source.space, target.space);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  };
  FakePci vendor;
  vendor.Put(PCI_VENDOR_ID, 0x8086, 2);
  EXPECT_THAT(refusal(vendor),
              AllOf(HasSubstr("it is 8086:101e (subsystem 15b3:0058, class 020000"),
                    HasSubstr("this one is 15b3:101e")));
  FakePci device;
  device.Put(PCI_DEVICE_ID, 0x1018, 2);
  EXPECT_THAT(refusal(device), HasSubstr("it is 15b3:1018"));
  FakePci kind;
  kind.Put(PCI_CLASS_REVISION, 0x03000001, 4);
  EXPECT_THAT(refusal(kind), AllOf(HasSubstr("class 030000"), HasSubstr("class 020000")));
  const FakePci size(4096);
  EXPECT_THAT(refusal(size), AllOf(HasSubstr("4096 bytes"), HasSubstr("256 bytes")));
  FakePci vectors;
  vectors.Put(FakePci::kMsix + PCI_MSIX_FLAGS, 63, 2);
  EXPECT_THAT(refusal(vectors), AllOf(HasSubstr("64 MSI-X vectors"), HasSubstr("8 MSI-X vectors")));
  FakePci moved;
  moved.Put(FakePci::kExpress, PCI_CAP_ID_EXP | FakePci::kMsix << 8, 2);  // past MSI
  EXPECT_THAT(refusal(moved), AllOf(HasSubstr("no MSI"), HasSubstr("MSI 0x90 (kind 0x184)")));

  FakePci subsystem;
  subsystem.Put(PCI_SUBSYSTEM_ID, 0x1234, 2);
  EXPECT_TRUE(CheckSameDevice(subsystem.space, target.space).ok());
}

}  // namespace
}  // namespace godwit

// The parts of the kernel's VFIO migration interface that Debian 12's <linux/vfio.h> (6.1) lacks,
// and the fixed-size forms of its variable-size structs.
//
// Constants of our own, so that a newer header can't clash; where it has the same fact, the
// static_asserts below hold the two together.
#ifndef GODWIT_VFIO_UAPI_H_
#define GODWIT_VFIO_UAPI_H_

#include <linux/vfio.h>

#include <cstdint>

namespace godwit::uapi {

// Indices of VFIO_DEVICE_FEATURE.
inline constexpr uint32_t kFeatureMigration = 1;
inline constexpr uint32_t kFeatureMigDeviceState = 2;
inline constexpr uint32_t kFeatureMigDataSize = 9;

// Bits of kFeatureMigration's flags.
inline constexpr uint64_t kMigrationStopCopy = 1;
inline constexpr uint64_t kMigrationP2p = 2;
inline constexpr uint64_t kMigrationPreCopy = 4;

// On a saving data_fd, in PRE_COPY and PRE_COPY_P2P only.
inline constexpr unsigned long kMigGetPrecopyInfo = _IO(VFIO_TYPE, VFIO_BASE + 21);

struct FeatureHeader {
  uint32_t argsz;  // of header and payload together
  uint32_t flags;  // feature index, and GET, SET or PROBE
};

struct MigrationPayload {
  uint64_t flags;
};

struct MigStatePayload {
  uint32_t device_state;
  int32_t data_fd;
};

struct MigDataSizePayload {
  uint64_t stop_copy_length;
};

struct PrecopyInfoArgument {
  uint32_t argsz;
  uint32_t flags;  // garbage on the way out before kernel 7.1
  uint64_t initial_bytes;
  uint64_t dirty_bytes;
};

static_assert(sizeof(FeatureHeader) == sizeof(vfio_device_feature));
static_assert(sizeof(MigrationPayload) == sizeof(vfio_device_feature_migration));
static_assert(sizeof(MigStatePayload) == sizeof(vfio_device_feature_mig_state));
static_assert(sizeof(PrecopyInfoArgument) == 24);
static_assert(kFeatureMigration == VFIO_DEVICE_FEATURE_MIGRATION);
static_assert(kFeatureMigDeviceState == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
static_assert(kMigrationStopCopy == VFIO_MIGRATION_STOP_COPY);
static_assert(kMigrationP2p == VFIO_MIGRATION_P2P);
#ifdef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
static_assert(kFeatureMigDataSize == VFIO_DEVICE_FEATURE_MIG_DATA_SIZE);
#endif
#ifdef VFIO_MIGRATION_PRE_COPY
static_assert(kMigrationPreCopy == VFIO_MIGRATION_PRE_COPY);
#endif
#ifdef VFIO_MIG_GET_PRECOPY_INFO
static_assert(kMigGetPrecopyInfo == VFIO_MIG_GET_PRECOPY_INFO);
#endif

}  // namespace godwit::uapi

#endif  // GODWIT_VFIO_UAPI_H_

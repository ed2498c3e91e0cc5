// SPDX-License-Identifier: GPL-2.0-only
/* The PCI function that users see: regions and interrupts. */
#include <linux/slab.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "synth.h"

#define SYNTH_REGION_SHIFT 40
#define SYNTH_BAR_BYTES SZ_4K
#define SYNTH_MSI_CAP 0x40
/* Past the scratch registers: who the device is, and a bell that makes it synth_interrupt. */
#define SYNTH_BAR_ID (SYNTH_REGISTERS * 4)
#define SYNTH_BAR_BELL (SYNTH_BAR_ID + 4)

static void config_set(struct synth_device *synth, int at, u32 value, u32 writable, int bytes)
{
	int i;

	for (i = 0; i < bytes; i++) {
		synth->config[at + i] = value >> (8 * i);
		synth->config_writable[at + i] = writable >> (8 * i);
	}
}

void synth_init_config(struct synth_device *synth)
{
	memset(synth->config, 0, sizeof(synth->config));
	memset(synth->config_writable, 0, sizeof(synth->config_writable));
	/* "GW" and "SY": no vendor has these. */
	config_set(synth, PCI_VENDOR_ID, 0x4757, 0, 2);
	config_set(synth, PCI_DEVICE_ID, 0x5953, 0, 2);
	config_set(synth, PCI_COMMAND, 0,
		   PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE, 2);
	config_set(synth, PCI_STATUS, PCI_STATUS_CAP_LIST, 0, 2);
	config_set(synth, PCI_REVISION_ID, 1, 0, 1);
	config_set(synth, PCI_CLASS_DEVICE, 0xff00, 0, 2);
	config_set(synth, PCI_CACHE_LINE_SIZE, 0, 0xff, 1);
	config_set(synth, PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_SPACE_MEMORY, ~(SYNTH_BAR_BYTES - 1), 4);
	config_set(synth, PCI_SUBSYSTEM_VENDOR_ID, 0x4757, 0, 2);
	config_set(synth, PCI_SUBSYSTEM_ID, 0x5953, 0, 2);
	config_set(synth, PCI_CAPABILITY_LIST, SYNTH_MSI_CAP, 0, 1);
	config_set(synth, PCI_INTERRUPT_LINE, 0, 0xff, 1);
	config_set(synth, PCI_INTERRUPT_PIN, 1, 0, 1);
	config_set(synth, SYNTH_MSI_CAP, PCI_CAP_ID_MSI, 0, 2);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT, PCI_MSI_FLAGS_ENABLE, 2);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_ADDRESS_LO, 0, ~3u, 4);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_ADDRESS_HI, 0, ~0u, 4);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_DATA_64, 0, 0xffff, 2);
}

static void synth_interrupt(struct synth_device *synth)
{
	if (synth->msi)
		eventfd_signal(synth->msi);
	else if (synth->intx && !synth->intx_masked)
		eventfd_signal(synth->intx);
}

static u32 bar_read(struct synth_device *synth, u32 at)
{
	if (at < SYNTH_BAR_ID)
		return synth->registers[at / 4];
	return at == SYNTH_BAR_ID ? lower_32_bits(SYNTH_MAGIC) : 0;
}

static u64 region_bytes(unsigned int index)
{
	if (index == VFIO_PCI_BAR0_REGION_INDEX)
		return SYNTH_BAR_BYTES;
	return index == VFIO_PCI_CONFIG_REGION_INDEX ? PCI_CFG_SPACE_SIZE : 0;
}

static u8 region_read_byte(struct synth_device *synth, unsigned int index, u32 at)
{
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return synth->config[at];
	return bar_read(synth, round_down(at, 4)) >> (8 * (at % 4));
}

static void region_write_byte(struct synth_device *synth, unsigned int index, u32 at, u8 value)
{
	u8 mask;

	if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		mask = synth->config_writable[at];
		synth->config[at] = (synth->config[at] & ~mask) | (value & mask);
	} else if (at < SYNTH_BAR_ID) {
		u32 shift = 8 * (at % 4);

		synth->registers[at / 4] =
			(synth->registers[at / 4] & ~(0xffu << shift)) | ((u32)value << shift);
	} else if (at == SYNTH_BAR_BELL && value) {
		synth_interrupt(synth);
	}
}

/* Where in which region, and how many bytes of `bytes` are inside; 0 for none. */
static size_t region_part(loff_t position, size_t bytes, unsigned int *index, u32 *at)
{
	u64 offset = position & ((1ULL << SYNTH_REGION_SHIFT) - 1), size;

	*index = position >> SYNTH_REGION_SHIFT;
	size = region_bytes(*index);
	if (offset >= size)
		return 0;
	*at = offset;
	return min_t(u64, bytes, size - offset);
}

ssize_t synth_region_read(struct vfio_device *vdev, char __user *to, size_t bytes, loff_t *position)
{
	struct synth_device *synth = to_synth(vdev);
	unsigned int index;
	u32 at = 0, i;
	u8 part[PCI_CFG_SPACE_SIZE]; /* whose readers take no short read */

	bytes = region_part(*position, min(bytes, sizeof(part)), &index, &at);
	if (!bytes)
		return -EINVAL;
	mutex_lock(&synth->lock);
	for (i = 0; i < bytes; i++)
		part[i] = region_read_byte(synth, index, at + i);
	mutex_unlock(&synth->lock);
	if (copy_to_user(to, part, bytes))
		return -EFAULT;
	*position += bytes;
	return bytes;
}

ssize_t synth_region_write(struct vfio_device *vdev, const char __user *from, size_t bytes,
				  loff_t *position)
{
	struct synth_device *synth = to_synth(vdev);
	unsigned int index;
	u32 at = 0, i;
	u8 part[PCI_CFG_SPACE_SIZE];

	bytes = region_part(*position, min(bytes, sizeof(part)), &index, &at);
	if (!bytes)
		return -EINVAL;
	if (copy_from_user(part, from, bytes))
		return -EFAULT;
	mutex_lock(&synth->lock);
	for (i = 0; i < bytes; i++)
		region_write_byte(synth, index, at + i, part[i]);
	mutex_unlock(&synth->lock);
	*position += bytes;
	return bytes;
}

void synth_put_trigger(struct eventfd_ctx **trigger)
{
	if (*trigger)
		eventfd_ctx_put(*trigger);
	*trigger = NULL;
}

static int set_trigger(struct eventfd_ctx **trigger, s32 fd)
{
	struct eventfd_ctx *context = NULL;

	if (fd >= 0) {
		context = eventfd_ctx_fdget(fd);
		if (IS_ERR(context))
			return PTR_ERR(context);
	}
	synth_put_trigger(trigger);
	*trigger = context;
	return 0;
}

static int set_irqs(struct synth_device *synth, const struct vfio_irq_set *set, const u8 *data)
{
	bool is_msi = set->index == VFIO_PCI_MSI_IRQ_INDEX;
	struct eventfd_ctx **trigger = is_msi ? &synth->msi : &synth->intx;
	u32 kind = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	u32 action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	bool applies = kind != VFIO_IRQ_SET_DATA_BOOL || (data && data[0]);

	if (action == VFIO_IRQ_SET_ACTION_TRIGGER) {
		if (kind == VFIO_IRQ_SET_DATA_EVENTFD)
			return data ? set_trigger(trigger, *(const s32 *)data) : -EINVAL;
		if (set->count == 0)
			synth_put_trigger(trigger);
		else if (applies && *trigger)
			eventfd_signal(*trigger);
		return 0;
	}
	if (is_msi || kind == VFIO_IRQ_SET_DATA_EVENTFD)
		return -ENOTTY;
	if (applies)
		synth->intx_masked = action == VFIO_IRQ_SET_ACTION_MASK;
	return 0;
}

static u32 vectors_of(u32 index)
{
	return index == VFIO_PCI_INTX_IRQ_INDEX || index == VFIO_PCI_MSI_IRQ_INDEX;
}

long synth_set_irqs_ioctl(struct synth_device *synth, void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_irq_set, count);
	struct vfio_irq_set set;
	size_t data_bytes = 0;
	u8 *data = NULL;
	int error;

	if (copy_from_user(&set, arg, bytes_min))
		return -EFAULT;
	if (set.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	error = vfio_set_irqs_validate_and_prepare(&set, vectors_of(set.index), VFIO_PCI_NUM_IRQS, &data_bytes);
	if (error)
		return error;
	if (data_bytes) {
		data = memdup_user(arg + bytes_min, data_bytes);
		if (IS_ERR(data))
			return PTR_ERR(data);
	}
	mutex_lock(&synth->lock);
	error = set_irqs(synth, &set, data);
	mutex_unlock(&synth->lock);
	kfree(data);
	return error;
}

long synth_device_info_ioctl(void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info;

	if (copy_from_user(&info, arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, bytes_min) ? -EFAULT : 0;
}

long synth_region_info_ioctl(void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info info;

	if (copy_from_user(&info, arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min || info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info.cap_offset = 0;
	info.size = region_bytes(info.index);
	info.offset = (u64)info.index << SYNTH_REGION_SHIFT;
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	return copy_to_user(arg, &info, bytes_min) ? -EFAULT : 0;
}

long synth_irq_info_ioctl(void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info;

	if (copy_from_user(&info, arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.count = vectors_of(info.index);
	info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD : 0;
	if (info.index == VFIO_PCI_INTX_IRQ_INDEX)
		info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
	else if (info.count)
		info.flags |= VFIO_IRQ_INFO_NORESIZE;
	return copy_to_user(arg, &info, bytes_min) ? -EFAULT : 0;
}

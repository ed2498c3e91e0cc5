// SPDX-License-Identifier: GPL-2.0-only
/* What VFIO calls. */
#include <linux/iova_bitmap.h>
#include <linux/sizes.h>

#include "synth.h"

static void reset_migration(struct synth_device *synth)
{
	synth_end_stream(synth);
	synth->state = VFIO_DEVICE_STATE_RUNNING;
}

static long reset_ioctl(struct synth_device *synth)
{
	mutex_lock(&synth->lock);
	reset_migration(synth);
	memset(synth->registers, 0, sizeof(synth->registers));
	synth_init_config(synth);
	synth->loaded_ok = false;
	mutex_unlock(&synth->lock);
	return 0;
}

static long synth_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long arg)
{
	switch (command) {
	case VFIO_DEVICE_GET_INFO:
		return synth_device_info_ioctl((void __user *)arg);
	case VFIO_DEVICE_GET_REGION_INFO:
		return synth_region_info_ioctl((void __user *)arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return synth_irq_info_ioctl((void __user *)arg);
	case VFIO_DEVICE_SET_IRQS:
		return synth_set_irqs_ioctl(to_synth(vdev), (void __user *)arg);
	case VFIO_DEVICE_RESET:
		return reset_ioctl(to_synth(vdev));
	default:
		return -ENOTTY;
	}
}

/* The state survives close, for tests to look at; the next user starts with a running device. */
static int synth_open(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	synth->is_open = true;
	if (synth->params.reset_on_open)
		reset_migration(synth);
	mutex_unlock(&synth->lock);
	return 0;
}

static void synth_close(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	synth_end_stream(synth);
	/* Without a stream these are no states to be found in; a reset is the way out. */
	if (is_saving(synth->state))
		synth->state = synth->state == VFIO_DEVICE_STATE_STOP_COPY ? VFIO_DEVICE_STATE_STOP :
									     VFIO_DEVICE_STATE_RUNNING;
	else if (synth->state == VFIO_DEVICE_STATE_RESUMING)
		synth->state = VFIO_DEVICE_STATE_ERROR;
	synth_stop_dma_log(synth);
	synth_put_trigger(&synth->intx);
	synth_put_trigger(&synth->msi);
	synth->intx_masked = false;
	synth->is_open = false;
	mutex_unlock(&synth->lock);
}

/* Which features a device has may change only while nobody can have asked. */
void synth_apply_features(struct synth_device *synth)
{
	synth->vdev.migration_flags = synth->params.migration_flags;
	synth->vdev.mig_ops = synth->params.migration_flags ? &synth_mig_ops : NULL;
	synth->vdev.log_ops = synth->params.dma_logging ? &synth_log_ops : NULL;
}

static int synth_init(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_init(&synth->lock);
	INIT_LIST_HEAD(&synth->dma_log_ranges);
	INIT_LIST_HEAD(&synth->dma_dirty);
	synth->state = VFIO_DEVICE_STATE_RUNNING;
	synth->params = (struct synth_params){
		.seed = 1,
		.size_bytes = SZ_1M,
		.migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
		.dma_logging = IS_ENABLED(CONFIG_IOMMUFD_DRIVER),
		.reset_on_open = 1,
		.precopy_initial_bytes = SZ_64K,
		.empty_is_enomsg = 1,
		.read_error_at = SYNTH_OFF,
		.read_errno = EIO,
		.write_error_at = SYNTH_OFF,
		.write_errno = EIO,
		.corrupt_at = SYNTH_OFF,
		.truncate_at = SYNTH_OFF,
	};
	synth_init_config(synth);
	synth_apply_features(synth);
	return 0;
}

static void synth_release(struct vfio_device *vdev)
{
	mutex_destroy(&to_synth(vdev)->lock);
}

const struct vfio_device_ops synth_device_ops = {
	.name = "godwit_synth",
	.init = synth_init,
	.release = synth_release,
	.open_device = synth_open,
	.close_device = synth_close,
	.read = synth_region_read,
	.write = synth_region_write,
	.ioctl = synth_ioctl,
#if IS_ENABLED(CONFIG_IOMMUFD)
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
#endif
};

// SPDX-License-Identifier: GPL-2.0-only
/* What the device has written to memory, by IOVA. */
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/slab.h>

#include "synth.h"

static void free_ranges(struct list_head *ranges)
{
	struct synth_range *range, *next;

	list_for_each_entry_safe(range, next, ranges, entry) {
		list_del(&range->entry);
		kfree(range);
	}
}

static int remember_range(struct list_head *ranges, u64 first, u64 last)
{
	struct synth_range *range = kmalloc(sizeof(*range), GFP_KERNEL_ACCOUNT);

	if (!range)
		return -ENOMEM;
	range->first = first;
	range->last = last;
	list_add_tail(&range->entry, ranges);
	return 0;
}

void synth_stop_dma_log(struct synth_device *synth)
{
	free_ranges(&synth->dma_log_ranges);
	free_ranges(&synth->dma_dirty);
	synth->dma_log_on = false;
}

static int synth_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 count,
			   u64 *page_bytes)
{
	struct synth_device *synth = to_synth(vdev);
	struct interval_tree_node *node;
	int error = 0;

	mutex_lock(&synth->lock);
	if (synth->dma_log_on) {
		error = -EINVAL;
		goto out;
	}
	for (node = interval_tree_iter_first(ranges, 0, ULONG_MAX); node && !error;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX))
		error = remember_range(&synth->dma_log_ranges, node->start, node->last);
	if (error) {
		synth_stop_dma_log(synth);
		goto out;
	}
	if (synth->params.dma_page_bytes)
		*page_bytes = synth->params.dma_page_bytes;
	synth->dma_log_page_bytes = *page_bytes;
	synth->dma_log_on = true;
out:
	mutex_unlock(&synth->lock);
	return error;
}

static int synth_log_stop(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	synth_stop_dma_log(synth);
	mutex_unlock(&synth->lock);
	return 0;
}

static int synth_log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
				    struct iova_bitmap *bitmap)
{
	struct synth_device *synth = to_synth(vdev);
	u64 last = iova + length - 1;
	struct synth_range *range, *next;
	int error = 0;

	mutex_lock(&synth->lock);
	if (!synth->dma_log_on)
		error = -EINVAL;
	else if (synth->params.dma_report_errno)
		error = -(int)synth->params.dma_report_errno;
	list_for_each_entry_safe(range, next, &synth->dma_dirty, entry) {
		u64 first_dirty = max_t(u64, range->first, iova), last_dirty = min(range->last, last);

		if (error)
			break;
		if (first_dirty > last_dirty)
			continue;
		/* What lies before and after stays dirty; a new range is put before the present one. */
		if (range->first < first_dirty)
			error = remember_range(&range->entry, range->first, first_dirty - 1);
		if (!error && range->last > last_dirty)
			error = remember_range(&range->entry, last_dirty + 1, range->last);
		if (error)
			break;
		iova_bitmap_set(bitmap, first_dirty, last_dirty - first_dirty + 1);
		list_del(&range->entry);
		kfree(range);
	}
	mutex_unlock(&synth->lock);
	return error;
}

const struct vfio_log_ops synth_log_ops = {
	.log_start = synth_log_start,
	.log_stop = synth_log_stop,
	.log_read_and_clear = synth_log_read_and_clear,
};

/* The device "writes" to memory: logged where logging was asked for, by whole pages. */
int synth_log_dma(struct synth_device *synth, u64 iova, u64 length)
{
	u64 first = round_down(iova, synth->dma_log_page_bytes);
	u64 last = round_down(iova + length - 1, synth->dma_log_page_bytes) + synth->dma_log_page_bytes - 1;
	struct synth_range *range;
	int error = 0;

	list_for_each_entry(range, &synth->dma_log_ranges, entry) {
		if (range->last < first || range->first > last || error)
			continue;
		error = remember_range(&synth->dma_dirty, max(range->first, first), min(range->last, last));
	}
	return error;
}

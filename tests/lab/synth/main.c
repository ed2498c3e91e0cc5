// SPDX-License-Identifier: GPL-2.0-only
/*
 * godwit_synth: a VFIO device for tests that is all migration. It looks like a PCI function with one
 * BAR, INTx and MSI, and has migration state of any size, made up as it is read and checked as it is
 * written. What drivers of real devices do now and then, it does on demand: see README.md.
 */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/mdev.h>
#include <linux/module.h>
#include <linux/version.h>

#include "synth.h"

static int synth_probe(struct mdev_device *mdev)
{
	struct synth_device *synth = vfio_alloc_device(synth_device, vdev, &mdev->dev, &synth_device_ops);
	int error;

	if (IS_ERR(synth))
		return PTR_ERR(synth);
	dev_set_drvdata(&mdev->dev, synth);
	error = vfio_register_emulated_iommu_dev(&synth->vdev);
	if (error)
		vfio_put_device(&synth->vdev);
	return error;
}

static void synth_remove(struct mdev_device *mdev)
{
	struct synth_device *synth = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&synth->vdev);
	vfio_put_device(&synth->vdev);
}

static struct mdev_driver synth_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.max_instances = 64,
	.driver = {
		.name = "godwit_synth",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
		.dev_groups = synth_groups,
	},
	.probe = synth_probe,
	.remove = synth_remove,
};

static struct mdev_type synth_type = { .sysfs_name = "pci", .pretty_name = "Godwit test device" };
static struct mdev_type *synth_types[] = { &synth_type };
static struct class *synth_class;
static struct device *synth_parent_device;
static struct mdev_parent synth_parent;

static int __init synth_module_init(void)
{
	int error;

	synth_class = class_create("godwit_synth");
	if (IS_ERR(synth_class))
		return PTR_ERR(synth_class);
	synth_parent_device = device_create(synth_class, NULL, MKDEV(0, 0), NULL, "godwit_synth");
	if (IS_ERR(synth_parent_device)) {
		error = PTR_ERR(synth_parent_device);
		goto no_device;
	}
	error = mdev_register_driver(&synth_driver);
	if (error)
		goto no_driver;
	error = mdev_register_parent(&synth_parent, synth_parent_device, &synth_driver, synth_types,
				     ARRAY_SIZE(synth_types));
	if (!error)
		return 0;
	mdev_unregister_driver(&synth_driver);
no_driver:
	device_unregister(synth_parent_device);
no_device:
	class_destroy(synth_class);
	return error;
}

static void __exit synth_module_exit(void)
{
	mdev_unregister_parent(&synth_parent);
	mdev_unregister_driver(&synth_driver);
	device_unregister(synth_parent_device);
	class_destroy(synth_class);
}

module_init(synth_module_init);
module_exit(synth_module_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A VFIO device for tests: migration state of any size, faults on demand");
#if IS_ENABLED(CONFIG_IOMMUFD_DRIVER)
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS("IOMMUFD");
#else
MODULE_IMPORT_NS(IOMMUFD);
#endif
#endif

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Kvm;
using FluentAssertions;
using Xunit;

namespace Conformance.Vfio;

/// <summary>Transfers by a device and the interrupts that end them.</summary>
public sealed class DmaTests(KernelUnderTest kernel)
{
    private const ulong Iova = 0x200000;
    private const int Page = 4096;

    // QEMU takes a transfer that ends with its buffer for one that leaves it.
    private const int Length = 2048;

    [Fact]
    [Clause("vfio-irqs/dma/data-before-interrupt")]
    public async Task DataIsThereWhenTheInterruptIs()
    {
        await using EduDevice edu = await kernel.OpenEduAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        Mapping memory = await edu.Session.MapAnonymousAsync(3 * Page, "memory");
        byte[] data = [.. Enumerable.Range(0, Length).Select(i => (byte)((i * 7) + (i >> 8)))];
        await memory.WriteAsync(0, data);
        await memory.FillAsync(Page, 2 * Page, 0xee);
        await edu.Vfio.Container.MapAsync(Iova, memory.Address, 3 * Page);
        await edu.Vfio.AttachAsync(IrqIndex.Msi, 0, eventfd);
        await edu.PrepareAsync(IrqIndex.Msi);

        await edu.TransferAsync(Iova, Length, toMemory: false);
        (await eventfd.WaitAsync()).Should().Be(1);
        await edu.AcknowledgeAsync(IrqIndex.Msi);
        await edu.TransferAsync(Iova + Page, Length, toMemory: true);
        (await eventfd.WaitAsync()).Should().Be(1);

        (await memory.ReadAsync(Page, Length)).Should().Equal(data);
        (await memory.ReadAsync(Page + Length, Length)).Should().OnlyContain(b => b == 0xee);
        (await edu.Vfio.Container.UnmapAsync(Iova, 3 * Page)).Should().Be(3 * Page);
    }

    [Fact]
    [Clause("vfio-irqs/dma/data-before-interrupt")]
    public async Task ControllerDescribesItselfBeforeItInterrupts()
    {
        await using NvmeDevice nvme = await kernel.OpenNvmeAsync();
        await using EventFd eventfd = await kernel.CreateEventFdAsync();
        await nvme.Vfio.AttachAsync(IrqIndex.Msix, 0, eventfd);
        await nvme.PrepareAsync(IrqIndex.Msix);

        for (int i = 0; i < 3; i++)
        {
            await nvme.FillDataAsync(0xee);
            await nvme.StartIdentifyAsync();
            (await eventfd.WaitAsync()).Should().Be(1);

            byte[] data = await nvme.ReadDataAsync();
            System.Text.Encoding.ASCII.GetString(data, 4, 20).Should().Be("conformance".PadRight(20), "it is the serial number of the machine's controller");
            data[^1].Should().Be(0, "the page is written to its end");
        }
    }
}

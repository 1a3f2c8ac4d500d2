// SPDX-License-Identifier: MIT
using Conformance.Fixtures;
using Conformance.Uapi;
using Conformance.Wire;
using static Conformance.Uapi.UserfaultfdConst;

namespace Conformance.Kvm;

/// <summary>A page of a session that whoever touches it first waits for, in the kernel too and with the locks it has, until it is released.</summary>
public sealed class HeldPage : IAsyncDisposable
{
    private const ulong Size = 4096;

    private readonly KernelFd _fd;
    private readonly Mapping _page;

    private HeldPage(KernelFd fd, Mapping page)
    {
        _fd = fd;
        _page = page;
    }

    public ulong Address => _page.Address;

    /// <summary>A test that needs one is skipped on a kernel without userfaultfd.</summary>
    public static async Task<HeldPage> CreateAsync(KernelSession session)
    {
        const uint NonBlockingCloseOnExec = 0x80800;
        Mapping page = await session.MapAnonymousAsync(Size, "held page");
        CallResult call = await session.Agent.CallAsync(new SystemCall(session.Numbers.Userfaultfd, "userfaultfd()").Arg(NonBlockingCloseOnExec));
        Skipping.UnlessCapability(call.Errno == 0, "userfaultfd", $"userfaultfd() = {(Errno)call.Errno}");
        var fd = new KernelFd(session, (int)call.Result, "userfaultfd");
        Vm.Expect((await session.IoctlAsync(fd, UFFDIO_API, new uffdio_api { api = UFFD_API }, "")).Outcome, nameof(UFFDIO_API));
        Vm.Expect((await session.IoctlAsync(fd, UFFDIO_REGISTER, new uffdio_register { start = page.Address, len = Size, mode = UFFDIO_REGISTER_MODE_MISSING }, "")).Outcome,
            nameof(UFFDIO_REGISTER));
        return new HeldPage(fd, page);
    }

    /// <summary>Waits until somebody waits for it.</summary>
    public Task WaitUntilTouchedAsync() => _fd.Session.PollAsync(_fd);

    /// <summary>It is a page like any other from now on.</summary>
    public Task ReleaseAsync() => _fd.CloseAsync();

    public ValueTask DisposeAsync() => _fd.DisposeAsync();
}

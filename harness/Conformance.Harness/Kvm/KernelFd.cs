// SPDX-License-Identifier: MIT
namespace Conformance.Kvm;

/// <summary>A descriptor that lives in a session of the kernel under test, by a name the journal and failures print.</summary>
/// <remarks>Closing is the tidy path; ending the session, which kills its process, is the sure one.</remarks>
public class KernelFd : IAsyncDisposable
{
    private int _closed;

    internal KernelFd(KernelSession session, int number, string name)
    {
        Session = session;
        Number = number;
        Name = name;
    }

    public KernelSession Session { get; }

    /// <summary>The descriptor in the session's process. Only the layers below and the rules about wrong descriptors look at it.</summary>
    public int Number { get; }

    public string Name { get; }

    public bool IsClosed => Volatile.Read(ref _closed) != 0;

    public async Task CloseAsync()
    {
        if (Interlocked.Exchange(ref _closed, 1) == 0)
        {
            await Session.CloseAsync(this);
        }
    }

    /// <summary>Another descriptor of the same open file.</summary>
    public async Task<KernelFd> DuplicateAsync() => new(Session, await Session.DuplicateAsync(this), Name + "'");

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        // A session that has ended took its descriptors with it.
        if (!Session.HasEnded)
        {
            await CloseAsync();
        }
    }

    public override string ToString() => Name;
}

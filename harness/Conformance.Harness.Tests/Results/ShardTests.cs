// SPDX-License-Identifier: MIT
using Conformance.Results;
using FluentAssertions;
using Xunit;

namespace Conformance.Harness.Tests.Results;

public sealed class ShardTests
{
    private static readonly string[] s_ids = [.. Enumerable.Range(0, 500).Select(n => $"Suite.Class.Test{n}")];

    [Fact]
    public void PartsOfAPartAreTheWholeOfIt()
    {
        var shard = new Shard(2, 3);
        IEnumerable<string> ofParts = new[] { shard.Part(1, 4), shard.Part(2, 4), shard.Part(3, 4), shard.Part(4, 4) }.SelectMany(p => s_ids.Where(p.Has));

        ofParts.Should().OnlyHaveUniqueItems().And.BeEquivalentTo(s_ids.Where(shard.Has));
    }

    [Fact]
    public void OnlyPartIsTheShardItself() => new Shard(2, 3).Part(1, 1).Should().Be(new Shard(2, 3));
}

// SPDX-License-Identifier: MIT
using Conformance.Fixtures;

[assembly: MachineNeeds(Architectures = ["arm64"])]

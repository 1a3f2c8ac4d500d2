// SPDX-License-Identifier: MIT
using Conformance.Fixtures;

[assembly: MachineNeeds(Modules = ["kvm-amd"], Architectures = ["x86_64"])]

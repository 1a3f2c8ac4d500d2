// SPDX-License-Identifier: MIT
return 64;

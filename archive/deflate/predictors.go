package deflate

import "math/bits"

func trailing(x uint64) int { return bits.TrailingZeros64(x) / 8 }

// predictors lists the predictors by their numbers in recipes, which never change.
func predictors(w *window) []func() matcher {
	chains := []chainOptions{
		{good: 8, lazy: 16, nice: 128, chain: 128},                 // zlib and GNU gzip, level 6
		{good: 32, lazy: 258, nice: 258, chain: 4096},              // 9
		{good: 4, nice: 8, chain: 4, skip: 4, greedy: true},        // 1
		{good: 4, nice: 16, chain: 8, skip: 5, greedy: true},       // 2
		{good: 4, nice: 32, chain: 32, skip: 6, greedy: true},      // 3
		{good: 4, lazy: 4, nice: 16, chain: 16},                    // 4
		{good: 8, lazy: 16, nice: 32, chain: 32},                   // 5
		{good: 8, lazy: 32, nice: 128, chain: 256},                 // 7
		{good: 32, lazy: 128, nice: 258, chain: 1024},              // 8
		{golang: true, lazy: 16, nice: 128, chain: 128},            // Go, level 6
		{golang: true, lazy: 258, nice: 258, chain: 4096},          // 9
		{golang: true, nice: 16, chain: 8, skip: 5, greedy: true},  // 2
		{golang: true, nice: 32, chain: 32, skip: 6, greedy: true}, // 3
		{golang: true, lazy: 4, nice: 16, chain: 16},               // 4
		{golang: true, lazy: 16, nice: 32, chain: 32},              // 5
		{golang: true, lazy: 32, nice: 128, chain: 256},            // 7
		{golang: true, lazy: 128, nice: 258, chain: 1024},          // 8
	}
	var list []func() matcher
	for _, o := range chains {
		list = append(list, func() matcher { return newChain(o, w) })
	}
	return append(list,
		func() matcher { return newScanGo(w) },   // Go, level 1
		func() matcher { return newScanFive(w) }, // klauspost, level 5
	)
}

package deflate

// predictor makes a matcher that may look so many bytes beyond a block, but not beyond where its encoder was told to emit what it had.
type predictor struct {
	make  func(*window) matcher
	ahead int
}

// predictors lists the predictors by their numbers in recipes, which never change.
func predictors() []predictor {
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
	var list []predictor
	near := func(f func(*window) matcher) { list = append(list, predictor{f, ahead}) }
	for _, o := range chains {
		near(func(w *window) matcher { return newChain(o, w) })
	}
	near(func(w *window) matcher { return newScanGo(w) })                     // Go, level 1
	near(func(w *window) matcher { return newScanFive(w, false, endsNewer) }) // klauspost, level 5
	near(func(w *window) matcher { return newScanFive(w, true, endsNewer) })  // 6
	near(func(w *window) matcher { return newScanOne(w, 15, false) })         // 1
	near(func(w *window) matcher { return newScanOne(w, 17, true) })          // 2
	near(func(w *window) matcher { return newScanThree(w) })                  // 3
	near(func(w *window) matcher { return newScanFour(w, true) })             // 4
	near(func(w *window) matcher { return newScanFour(w, false) })            // 4, up to version 1.17
	for _, o := range []lazyOptions{
		{lazy: 12, nice: 16, chain: 24},                              // 7
		{lazy: 30, nice: 40, chain: 64},                              // 8
		{lazy: 258, nice: 258, chain: 1024, gain: true},              // 9
		{lazy: 258, nice: 258, chain: 1024, gain: true, versions: 1}, // 9, of versions 1.16 and 1.17
		{lazy: 12, nice: 16, chain: 24, versions: 2},                 // 7, and below: up to 1.15
		{lazy: 30, nice: 40, chain: 64, versions: 2},                 // 8
		{lazy: 258, nice: 258, chain: 1024, gain: true, versions: 2}, // 9
	} {
		list = append(list, predictor{func(w *window) matcher { return newLazy(o, w) }, farthest})
	}
	for _, ends := range []int{endsOlder, endsUnseen} { // older ones at levels 5 and 6
		near(func(w *window) matcher { return newScanFive(w, false, ends) })
		near(func(w *window) matcher { return newScanFive(w, true, ends) })
	}
	return list
}

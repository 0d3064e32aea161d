//go:build !race

package accesslog_test

import "testing"

// Under the race detector sync.Pool loses buffers on purpose.
func TestLoggingAllocatesNothing(t *testing.T) {
	f := newFixture(t)
	logger := f.build(t, toFile(t, f.path, "", ""))[0]
	defer logger.Close()
	s := stream("/x")
	for range 100 { // both buffers find their size
		logger.LogHTTP(s)
		logger.Flush()
		logger.LogHTTP(s)
		logger.Flush()
	}
	if n := testing.AllocsPerRun(500, func() { logger.LogHTTP(s); logger.Flush() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

package http

import (
	"math"
	"strconv"
	"time"
)

// AppendGRPCTimeout writes a deadline in the smallest unit that eight digits allow.
func AppendGRPCTimeout(dst []byte, d time.Duration) []byte {
	for _, u := range []byte("mSM") {
		if n := d / grpcUnits[u]; n <= maxGRPCTimeout {
			return append(strconv.AppendInt(dst, int64(n), 10), u)
		}
	}
	return append(strconv.AppendInt(dst, int64(d/time.Hour), 10), 'H')
}

var grpcUnits = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}

// maxGRPCTimeout is the largest number of a grpc-timeout: it has eight digits.
const maxGRPCTimeout = 99_999_999

// ParseGRPCTimeout reads a grpc-timeout: it parses up to eight digits and a unit, and rounds up to milliseconds.
// What no duration can hold (292 years) is the longest one.
func ParseGRPCTimeout(v []byte) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	unit, ok := grpcUnits[v[len(v)-1]]
	n, err := strconv.ParseUint(string(v[:len(v)-1]), 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	if time.Duration(n) > math.MaxInt64/unit-1 {
		return math.MaxInt64 / time.Hour * time.Hour, true
	}
	d := time.Duration(n)*unit + time.Millisecond - 1
	return d - d%time.Millisecond, true
}

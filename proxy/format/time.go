package format

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// milliseconds is an operator on a duration; absent until its end was reached.
func milliseconds(get func(*streaminfo.Info) (time.Duration, bool)) operator {
	return plain(numeric(func(dst []byte, r Record) ([]byte, bool) {
		d, ok := get(r.Info)
		if !ok {
			return dst, false
		}
		return strconv.AppendInt(dst, d.Milliseconds(), 10), true
	}))
}

func whole(i *streaminfo.Info) (time.Duration, bool) {
	if i.End.IsZero() {
		return 0, false
	}
	return i.End.Sub(i.Start), true
}

// reached is a point of a stream, whose zero is "not reached".
func reached(d time.Duration) (time.Duration, bool) { return max(d, 0), d != 0 }

func responseSending(i *streaminfo.Info) (time.Duration, bool) {
	total, ok := whole(i)
	return max(total-i.UpstreamResponse, 0), ok && i.UpstreamResponse != 0
}

// points are the points in time of COMMON_DURATION that the proxy notes.
var points = map[string]func(*streaminfo.Info) (time.Duration, bool){
	"DS_RX_BEG": func(*streaminfo.Info) (time.Duration, bool) { return 0, true },
	"DS_RX_END": func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.RequestReceived) },
	"US_TX_BEG": func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.UpstreamRequestSent) },
	"US_TX_END": func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.UpstreamRequestEnd) },
	"US_RX_BEG": func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.UpstreamResponse) },
	"US_RX_END": func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.UpstreamResponseEnd) },
	"DS_TX_BEG": func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.ResponseSent) },
	"DS_TX_END": func(i *streaminfo.Info) (time.Duration, bool) {
		total, ok := whole(i)
		return total, ok && i.Protocol != "" // of bytes without HTTP nobody notes the last
	},
}

// buildCommonDuration reads "from:to:unit".
func buildCommonDuration(params string) (*operation, error) {
	part := strings.Split(params, ":")
	if len(part) != 3 {
		return nil, errParam(params, "from:to:unit")
	}
	from, to := points[part[0]], points[part[1]]
	unit := map[string]time.Duration{"ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond}[part[2]]
	switch {
	case from == nil:
		return nil, fmt.Errorf("point in time %s: unknown or not supported", part[0])
	case to == nil:
		return nil, fmt.Errorf("point in time %s: unknown or not supported", part[1])
	case unit == 0:
		return nil, errParam(part[2], "ms, us or ns")
	}
	op := numeric(func(dst []byte, r Record) ([]byte, bool) {
		a, okA := from(r.Info)
		b, okB := to(r.Info)
		if !okA || !okB || b < a {
			return dst, false
		}
		return strconv.AppendInt(dst, int64((b-a)/unit), 10), true
	})
	return &op, nil
}

// buildTime is an operator on a moment with an optional strftime format.
func buildTime(get func(Record) time.Time, zone *time.Location) func(string) (*operation, error) {
	return func(params string) (*operation, error) {
		if params == "" {
			params = "%Y-%m-%dT%H:%M:%E3S"
			if zone == time.UTC {
				params += "Z"
			} else {
				params += "%z"
			}
		}
		if strings.ContainsAny(params, "\r\n") || strings.Contains(params, "%n") {
			return nil, errors.New("format has a newline")
		}
		steps := strftime(params)
		return &operation{write: func(dst []byte, r Record) ([]byte, bool) {
			t := get(r)
			if t.IsZero() {
				return dst, false
			}
			t = t.In(zone)
			for _, s := range steps {
				dst = s(dst, t)
			}
			return dst, true
		}}, nil
	}
}

// A timeStep appends one piece of a formatted time.
type timeStep func(dst []byte, t time.Time) []byte

// strftime divides a format into steps; what it does not know stays as it is.
func strftime(format string) []timeStep {
	var steps []timeStep
	for len(format) > 0 {
		i := strings.IndexByte(format, '%')
		if i != 0 {
			if i < 0 {
				i = len(format)
			}
			steps, format = append(steps, literalStep(format[:i])), format[i:]
			continue
		}
		step, n := readSpecifier(format)
		steps, format = append(steps, step), format[n:]
	}
	return steps
}

func literalStep(s string) timeStep {
	return func(dst []byte, _ time.Time) []byte { return append(dst, s...) }
}

// readSpecifier reads the conversion at the start of format and how long it is.
func readSpecifier(format string) (timeStep, int) {
	if len(format) < 2 {
		return literalStep(format), len(format)
	}
	if step := specifiers[format[1]]; step != nil {
		return step, 2
	}
	if step, n := readFraction(format); step != nil {
		return step, n
	}
	return literalStep(format[:2]), 2
}

// readFraction reads %f, %3f, %E3S, %E*S, %E3f, %E4Y and %Ez.
func readFraction(format string) (timeStep, int) {
	rest, extended := strings.CutPrefix(format[1:], "E")
	digits, all := -1, false
	if rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		digits, rest = int(rest[0]-'0'), rest[1:]
	} else if extended && strings.HasPrefix(rest, "*") {
		all, rest = true, rest[1:]
	}
	if rest == "" {
		return nil, 0
	}
	n := len(format) - len(rest) + 1
	switch c := rest[0]; {
	case c == 'f' && all:
		return fraction(9, true), n
	case c == 'f' && digits >= 0:
		return fraction(digits, false), n
	case c == 'f' && !extended:
		return fraction(9, false), n
	case c == 'S' && extended && (all || digits >= 0):
		return seconds(digits, all), n
	case c == 'Y' && extended && digits == 4:
		return specifiers['Y'], n
	case c == 'z' && extended && digits < 0:
		return zoneOffset(":"), n
	}
	return nil, 0
}

// fraction appends digits of the second's fraction; trimmed without zeros at the end.
func fraction(digits int, trimmed bool) timeStep {
	return func(dst []byte, t time.Time) []byte {
		start := len(dst)
		n := t.Nanosecond()
		for unit := 100_000_000; len(dst)-start < digits; unit /= 10 {
			dst = append(dst, byte('0'+n/unit%10))
		}
		for trimmed && len(dst) > start && dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
		return dst
	}
}

func seconds(digits int, all bool) timeStep {
	part := fraction(max(digits, 0), false)
	if all {
		part = fraction(9, true)
	}
	return func(dst []byte, t time.Time) []byte {
		dst = pad(dst, t.Second(), 2, '0')
		dst = append(dst, '.')
		n := len(dst)
		if dst = part(dst, t); len(dst) == n {
			dst = dst[:n-1]
		}
		return dst
	}
}

func zoneOffset(separator string) timeStep {
	return func(dst []byte, t time.Time) []byte {
		_, offset := t.Zone()
		sign := byte('+')
		if offset < 0 {
			sign, offset = '-', -offset
		}
		dst = pad(append(dst, sign), offset/3600, 2, '0')
		return pad(append(dst, separator...), offset/60%60, 2, '0')
	}
}

// pad appends n, which is not negative, with at least width digits.
func pad(dst []byte, n, width int, with byte) []byte {
	for limit := 1; width > 1; width-- {
		limit *= 10
		if n < limit {
			dst = append(dst, with)
		}
	}
	return strconv.AppendInt(dst, int64(n), 10)
}

func twoDigits(get func(time.Time) int) timeStep {
	return func(dst []byte, t time.Time) []byte { return pad(dst, get(t), 2, '0') }
}

func word(get func(time.Time) string) timeStep {
	return func(dst []byte, t time.Time) []byte { return append(dst, get(t)...) }
}

// specifiers are the conversions of one letter in the C locale.
var specifiers = map[byte]timeStep{
	'%': literalStep("%"), 't': literalStep("\t"),
	'Y': func(dst []byte, t time.Time) []byte { return strconv.AppendInt(dst, int64(t.Year()), 10) },
	'C': twoDigits(func(t time.Time) int { return t.Year() / 100 }),
	'y': twoDigits(func(t time.Time) int { return t.Year() % 100 }),
	'G': func(dst []byte, t time.Time) []byte { y, _ := t.ISOWeek(); return strconv.AppendInt(dst, int64(y), 10) },
	'g': twoDigits(func(t time.Time) int { y, _ := t.ISOWeek(); return y % 100 }),
	'V': twoDigits(func(t time.Time) int { _, w := t.ISOWeek(); return w }),
	'U': twoDigits(func(t time.Time) int { return (t.YearDay() + 6 - int(t.Weekday())) / 7 }),
	'W': twoDigits(func(t time.Time) int { return (t.YearDay() + 6 - (int(t.Weekday())+6)%7) / 7 }),
	'm': twoDigits(func(t time.Time) int { return int(t.Month()) }),
	'd': twoDigits(time.Time.Day),
	'e': func(dst []byte, t time.Time) []byte { return pad(dst, t.Day(), 2, ' ') },
	'j': func(dst []byte, t time.Time) []byte { return pad(dst, t.YearDay(), 3, '0') },
	'H': twoDigits(time.Time.Hour),
	'k': func(dst []byte, t time.Time) []byte { return pad(dst, t.Hour(), 2, ' ') },
	'I': twoDigits(hour12),
	'l': func(dst []byte, t time.Time) []byte { return pad(dst, hour12(t), 2, ' ') },
	'M': twoDigits(time.Time.Minute),
	'S': twoDigits(time.Time.Second),
	's': func(dst []byte, t time.Time) []byte { return strconv.AppendInt(dst, t.Unix(), 10) },
	'a': word(func(t time.Time) string { return t.Weekday().String()[:3] }),
	'A': word(func(t time.Time) string { return t.Weekday().String() }),
	'b': word(func(t time.Time) string { return t.Month().String()[:3] }),
	'h': word(func(t time.Time) string { return t.Month().String()[:3] }),
	'B': word(func(t time.Time) string { return t.Month().String() }),
	'p': word(func(t time.Time) string { return half(t, "AM", "PM") }),
	'P': word(func(t time.Time) string { return half(t, "am", "pm") }),
	'u': func(dst []byte, t time.Time) []byte { return append(dst, byte('1'+(t.Weekday()+6)%7)) },
	'w': func(dst []byte, t time.Time) []byte { return append(dst, byte('0'+t.Weekday())) },
	'z': zoneOffset(""),
	'Z': word(func(t time.Time) string { name, _ := t.Zone(); return name }),
	'D': layout("01/02/06"), 'x': layout("01/02/06"), 'F': layout("2006-01-02"),
	'T': layout("15:04:05"), 'X': layout("15:04:05"), 'R': layout("15:04"), 'r': layout("03:04:05 PM"),
	'c': layout("Mon Jan _2 15:04:05 2006"),
}

func layout(l string) timeStep {
	return func(dst []byte, t time.Time) []byte { return t.AppendFormat(dst, l) }
}

func hour12(t time.Time) int { return (t.Hour()+11)%12 + 1 }

func half(t time.Time, before, after string) string {
	if t.Hour() < 12 {
		return before
	}
	return after
}

package format

import (
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// grpcNames are the status codes in both spellings.
var grpcNames = [...]struct{ camel, snake string }{
	{"OK", "OK"}, {"Canceled", "CANCELLED"}, {"Unknown", "UNKNOWN"}, {"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"}, {"NotFound", "NOT_FOUND"}, {"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"}, {"ResourceExhausted", "RESOURCE_EXHAUSTED"}, {"FailedPrecondition", "FAILED_PRECONDITION"},
	{"Aborted", "ABORTED"}, {"OutOfRange", "OUT_OF_RANGE"}, {"Unimplemented", "UNIMPLEMENTED"}, {"Internal", "INTERNAL"},
	{"Unavailable", "UNAVAILABLE"}, {"DataLoss", "DATA_LOSS"}, {"Unauthenticated", "UNAUTHENTICATED"},
}

func buildGRPCStatus(style string) (*operation, error) {
	switch style {
	case "NUMBER":
		op := numeric(func(dst []byte, r Record) ([]byte, bool) {
			code, ok := grpcStatus(r)
			if !ok {
				return dst, false
			}
			return strconv.AppendInt(dst, int64(code), 10), true
		})
		return &op, nil
	case "", "CAMEL_STRING", "SNAKE_STRING":
		return &operation{write: func(dst []byte, r Record) ([]byte, bool) {
			code, ok := grpcStatus(r)
			switch {
			case !ok:
				return dst, false
			case code < 0 || code >= len(grpcNames):
				return strconv.AppendInt(dst, int64(code), 10), true
			case style == "SNAKE_STRING":
				return append(dst, grpcNames[code].snake...), true
			}
			return append(dst, grpcNames[code].camel...), true
		}}, nil
	}
	return nil, errParam(style, "CAMEL_STRING, SNAKE_STRING or NUMBER")
}

// grpcStatus is GRPCStatus for gRPC requests alone.
func grpcStatus(r Record) (int, bool) {
	if r.Request == nil || !r.Request.IsGRPC() {
		return 0, false
	}
	return GRPCStatus(r)
}

// GRPCStatus is the gRPC status of a response: from the trailers, the headers, or
// else by the HTTP status. false: there is no response.
func GRPCStatus(r Record) (int, bool) {
	if r.Response == nil {
		return 0, false
	}
	if r.ResponseTrailers != nil {
		if code, ok := decimal(r.ResponseTrailers.Get("grpc-status")); ok {
			return code, true
		}
	}
	if code, ok := decimal(r.Response.Headers.Get("grpc-status")); ok {
		return code, true
	}
	if r.Info.Code == 0 {
		return 0, false
	}
	return http.GRPCStatus(r.Info.Code), true
}

func decimal(v []byte) (n int, ok bool) {
	if len(v) == 0 || len(v) > 9 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

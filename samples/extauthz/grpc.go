package extauthz

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
)

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// Codes of gRPC.
const (
	codeOK               = 0
	codePermissionDenied = 7
	codeUnimplemented    = 12
	codeInternal         = 13
)

// serveGRPC answers a CheckRequest with a CheckResponse.
func (a *authorizer) serveGRPC(w http.ResponseWriter, r *http.Request, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	if r.URL.Path != checkMethod {
		h.Set("Grpc-Status", strconv.Itoa(codeUnimplemented))
		return
	}
	q, err := readQuestion(body)
	if err != nil {
		h.Set("Grpc-Status", strconv.Itoa(codeInternal))
		h.Set("Grpc-Message", err.Error())
		return
	}
	told := received(q.method, q.host+q.path, fmt.Sprint(q.headers), q.body)
	result := a.decide("gRPC", q.headers[checkHeader], q.principal, told)
	_, _ = w.Write(answer(result, told)) // who has asked sees whether it came
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(codeOK))
}

// question is what a CheckRequest says of a request.
type question struct {
	principal, method, host, path, body string
	headers                             map[string]string
}

// readQuestion takes a CheckRequest out of its frame. Numbers are those of the fields in
// envoy/service/auth/v3.
func readQuestion(frame []byte) (*question, error) {
	if len(frame) < 5 || frame[0] != 0 || int64(binary.BigEndian.Uint32(frame[1:])) != int64(len(frame)-5) {
		return nil, fmt.Errorf("not one plain message")
	}
	q := &question{headers: map[string]string{}}
	err := eachField(frame[5:], func(n int, attributes []byte) error {
		if n != 1 {
			return nil
		}
		return eachField(attributes, func(n int, part []byte) error {
			switch n {
			case 1:
				return eachField(part, func(n int, v []byte) error { return keep(n, 4, v, &q.principal) })
			case 4:
				return eachField(part, func(n int, http []byte) error {
					if n != 2 {
						return nil
					}
					return eachField(http, q.takeHTTP)
				})
			}
			return nil
		})
	})
	return q, err
}

func keep(n, want int, v []byte, to *string) error {
	if n == want {
		*to = string(v)
	}
	return nil
}

// takeHTTP takes one field of an HttpRequest.
func (q *question) takeHTTP(n int, v []byte) error {
	switch n {
	case 2:
		q.method = string(v)
	case 3:
		var key, value string
		err := eachField(v, func(n int, v []byte) error {
			_ = keep(n, 1, v, &key)
			return keep(n, 2, v, &value)
		})
		q.headers[key] = value
		return err
	case 4:
		q.path = string(v)
	case 5:
		q.host = string(v)
	case 11, 12:
		q.body = string(v)
	}
	return nil
}

// answer is a CheckResponse in its frame.
func answer(result, told string) []byte {
	headers := [][2]string{{resultHeader, result}, {receivedHeader, told}, {overrideHeader, grpcOverride}}
	var what []byte
	for _, h := range headers {
		pair := appendField(appendField(nil, 1, []byte(h[0])), 2, []byte(h[1]))
		what = appendField(what, 2, appendField(nil, 1, pair))
	}
	m := make([]byte, 5, 256)
	if result == allowed {
		m = appendField(m, 1, nil)
		m = appendField(m, 3, what)
	} else {
		m = appendField(m, 1, appendNumber(nil, 1, codePermissionDenied))
		what = appendField(what, 1, appendNumber(nil, 1, http.StatusForbidden))
		m = appendField(m, 2, appendField(what, 3, []byte(denial)))
	}
	binary.BigEndian.PutUint32(m[1:], uint32(len(m)-5))
	return m
}

package ratings

import (
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

func TestAnswers(t *testing.T) {
	service := New()
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/health", "", 200, `{"status":"Ratings is healthy"}`},
		{"GET", "/ratings/0", "", 200, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"GET", "/ratings/x", "", 400, `{"error":"please provide a numeric product ID"}`},
		{"POST", "/ratings/x", `{}`, 400, `{"error":"please provide a numeric product ID"}`},
		{"POST", "/ratings/0", `{`, 400, `{"error":"please provide valid ratings JSON"}`},
		{"POST", "/ratings/0", `null`, 400, `{"error":"please provide valid ratings JSON"}`},
		{"POST", "/ratings/0", `{"Reviewer1":6}`, 400, `{"error":"ratings are numbers from 1 to 5"}`},
		{"POST", "/ratings/0", `{"` + strings.Repeat("a", maxBody) + `":1}`, 413, `{"error":"http: request body too large"}`},
		{"GET", "/ratings/0", "", 200, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"POST", "/ratings/0", `{"Reviewer1":1}`, 200, `{"id":0,"ratings":{"Reviewer1":1}}`},
		{"GET", "/ratings/0", "", 200, `{"id":0,"ratings":{"Reviewer1":1}}`},
		{"GET", "/ratings/1", "", 200, `{"id":1,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"DELETE", "/ratings/0", "", 405, "Method Not Allowed\n"},
	} {
		w := httptest.NewRecorder()
		service.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.status || w.Body.String() != tt.want {
			t.Errorf("%s %s %.40s: %d %s\nwant %d %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

// No number of posted books fills the memory.
func TestBooksAreBounded(t *testing.T) {
	service := New()
	post := func(id int) int {
		w := httptest.NewRecorder()
		service.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/ratings/"+strconv.Itoa(id), strings.NewReader(`{"Reviewer1":1}`)))
		return w.Code
	}
	for id := range maxBooks {
		if status := post(id); status != 200 {
			t.Fatalf("book %d: %d", id, status)
		}
	}
	if status := post(maxBooks); status != 507 {
		t.Errorf("one more: %d", status)
	}
	if status := post(0); status != 200 {
		t.Errorf("one that is kept: %d", status)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"Reviewer1":5}`))
	f.Add([]byte(`{"a":0}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := parse(body)
		if (err == nil) != (all != nil) {
			t.Errorf("%v, %v", all, err)
		}
		for _, stars := range all {
			if stars < 1 || stars > 5 {
				t.Errorf("%d stars", stars)
			}
		}
	})
}

package inject

import "testing"

// BenchmarkReview is what a pod waits for while it is made.
func BenchmarkReview(b *testing.B) {
	s := Default()
	body := reviewOf("v1", "shop", `{"metadata":{"generateName":"web-","labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"nginx","ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":80}}}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, verdict, err := s.Review(body, Request{NativeSidecars: true}, nil); err != nil || !verdict.Result.Injected {
			b.Fatal(verdict, err)
		}
	}
}

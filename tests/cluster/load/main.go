// What sends requests at a steady rate while a test does something to the cluster, whatever becomes of those before; at the
// end one line of JSON says what became of each. Each request has a connection of its own, or with -keep one that is kept.
// Beside them, as long as they go on, streams of gRPC's framing and connections of bytes can be held open, on each of which
// something is echoed ten times a second: those are one outcome each. It ends when the last is over or has waited for too
// long. With -serve it is what answers all three.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// The outcome of one request, stream or connection.
type outcome struct {
	// When it began, in seconds after the first.
	At float64 `json:"at"`
	// The same by the clock, in seconds since 1970.
	Clock float64 `json:"clock"`
	// From its start to the last byte of the answer, connecting and looking up the name included, in milliseconds; of streams and
	// connections, the slowest echo.
	Took float64 `json:"took"`
	// The status, or why there was none.
	Status string `json:"status"`
}

// How long one answer or echo may take.
var patience = flag.Duration("patience", 10*time.Second, "how long one may take")

// Between two echoes.
const pause = 100 * time.Millisecond

func became(begin, start time.Time, took time.Duration, status string) outcome {
	milliseconds := float64(took.Microseconds()) / 1000
	return outcome{start.Sub(begin).Seconds(), float64(start.UnixMicro()) / 1e6, milliseconds, status}
}

func one(client *http.Client, url string) string {
	answer, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err.Error()
	}
	return fmt.Sprint(answer.StatusCode)
}

// Sends something and reads it back until over; how long the slowest took.
func echoes(stream io.ReadWriter, over <-chan struct{}, deadline func(time.Time)) (slowest time.Duration, err error) {
	// As a message of gRPC: not compressed, its length, itself.
	sent, got := []byte{0, 0, 0, 0, 4, 'e', 'c', 'h', 'o'}, make([]byte, 9)
	for {
		start := time.Now()
		deadline(start.Add(*patience))
		if _, err := stream.Write(sent); err != nil {
			return slowest, err
		}
		if _, err := io.ReadFull(stream, got); err != nil {
			return slowest, err
		}
		slowest = max(slowest, time.Since(start))
		select {
		case <-over:
			return slowest, nil
		case <-time.After(pause):
		}
	}
}

// Holds one open and says what became of it.
func hold(begin time.Time, work func() (time.Duration, error)) outcome {
	start := time.Now()
	slowest, err := work()
	status := "200"
	if err != nil {
		status = fmt.Sprintf("broken after %.1f s: %v", time.Since(begin).Seconds(), err)
	}
	return became(begin, start, slowest, status)
}

func connection(address string, over <-chan struct{}) (time.Duration, error) {
	conn, err := net.DialTimeout("tcp", address, *patience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return echoes(conn, over, func(at time.Time) { _ = conn.SetDeadline(at) })
}

// The two halves of a stream.
type halves struct {
	io.Reader
	io.Writer
}

func stream(address string, over <-chan struct{}) (time.Duration, error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	reads, writes := io.Pipe()
	defer writes.Close()
	request, err := http.NewRequest(http.MethodPost, "http://"+address+"/echo.Echo/Stream", reads)
	if err != nil {
		return 0, err
	}
	request.Header.Set("content-type", "application/grpc")
	request.Header.Set("te", "trailers")
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("grpc-status") != "" {
		return 0, fmt.Errorf("%s, gRPC %s", answer.Status, answer.Header.Get("grpc-status"))
	}
	late := time.AfterFunc(*patience, func() { _ = answer.Body.Close() })
	defer late.Stop()
	return echoes(halves{answer.Body, writes}, over, func(at time.Time) { late.Reset(time.Until(at)) })
}

// Requests at a steady rate, to the end of the last.
func requests(begin time.Time, outcomes []outcome, rate int, client *http.Client, url string) {
	var all sync.WaitGroup
	for i := range outcomes {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		all.Go(func() {
			start := time.Now()
			status := one(client, url)
			outcomes[i] = became(begin, start, time.Since(start), status)
		})
	}
	all.Wait()
}

func main() {
	serving := flag.Bool("serve", false, "answer HTTP and gRPC at port 8080 and bytes at 9090")
	count := flag.Int("count", 100, "how many requests")
	rate := flag.Int("rate", 50, "how many in a second")
	keep := flag.Bool("keep", false, "keep connections")
	streams := flag.Int("streams", 0, "how many streams to hold open")
	streamsTo := flag.String("streams-to", "", "host and port")
	connections := flag.Int("connections", 0, "how many connections to hold open")
	connectionsTo := flag.String("connections-to", "", "host and port")
	flag.Parse()
	if *serving {
		serve()
		return
	}
	transport := &http.Transport{DisableKeepAlives: !*keep, MaxIdleConnsPerHost: *rate}
	client := &http.Client{Timeout: *patience, Transport: transport}
	outcomes := make([]outcome, *count+*streams+*connections)
	over, begin := make(chan struct{}), time.Now()
	var held sync.WaitGroup
	for i := range *streams {
		held.Go(func() {
			outcomes[*count+i] = hold(begin, func() (time.Duration, error) { return stream(*streamsTo, over) })
		})
	}
	for i := range *connections {
		held.Go(func() {
			outcomes[*count+*streams+i] = hold(begin, func() (time.Duration, error) { return connection(*connectionsTo, over) })
		})
	}
	requests(begin, outcomes[:*count], *rate, client, flag.Arg(0))
	close(over)
	held.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(outcomes); err != nil {
		panic(err)
	}
}

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

// Answers requests with 200, gRPC's streams and connections with what they send. Told to end, it takes no more and ends
// when what is under way is over, as a well-behaved application does.
func serve() {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: ":8080", Protocols: &protocols, Handler: http.HandlerFunc(answer)}
	listener, err := net.Listen("tcp", ":9090")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	over := make(chan struct{})
	go func() {
		<-told
		_ = listener.Close()
		_ = server.Shutdown(context.Background())
		close(over)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		panic(err)
	}
	<-over
}

func answer(w http.ResponseWriter, request *http.Request) {
	if request.Header.Get("content-type") != "application/grpc" {
		_, _ = io.WriteString(w, "served\n")
		return
	}
	w.Header().Set("content-type", "application/grpc")
	w.Header().Set("trailer", "grpc-status")
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	buffer := make([]byte, 1024)
	for {
		n, err := request.Body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			_ = flush.Flush()
		}
		if err != nil {
			break
		}
	}
	w.Header().Set("grpc-status", "0")
}

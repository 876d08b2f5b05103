// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// nginxConfig: connections to both sides are kept, and an answer is passed on
// as it comes, or streams would not be streams. In it are the folder, a line
// for root, the upstream's address and nginx's own.
const nginxConfig = `daemon off;
%[2]sworker_processes auto;
error_log stderr warn;
pid %[1]s/nginx.pid;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  keepalive_requests 1000000000;
  upstream provider { server %[3]s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %[4]s;
    location / {
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`

// startNginx starts the nginx that is installed, if one is.
func (s *stage) startNginx(ctx context.Context) (endpoint, error) {
	nginx, err := findProgram("nginx", "/usr/sbin", "/usr/local/sbin")
	if err != nil {
		return endpoint{}, err
	}
	addr, err := freeAddr()
	if err != nil {
		return endpoint{}, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // its workers must get at files of this run
	}
	config := filepath.Join(s.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, s.dir, user, s.upstreamAddr(), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return endpoint{}, err
	}
	p, err := s.run("nginx", exec.Command(nginx, "-p", s.dir, "-e", "stderr", "-c", config)) //nolint:gosec,noctx // the nginx of PATH, which Stop ends
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{addr: addr, path: chat.Path, processes: treeOf(p)}
	version, _ := exec.CommandContext(ctx, nginx, "-v").CombinedOutput() //nolint:gosec // as above
	if _, v, ok := bytes.Cut(version, []byte("nginx/")); ok {
		s.versions = append(s.versions, "nginx "+strings.TrimSpace(string(v)))
	}
	return e, p.Await(ctx, 10*time.Second, func() bool { return listens(ctx, addr) })
}

// findProgram looks for a program on PATH, and then in some folders more.
func findProgram(name string, folders ...string) (string, error) {
	path, err := exec.LookPath(name)
	for i := 0; err != nil && i < len(folders); i++ {
		path, err = exec.LookPath(filepath.Join(folders[i], name))
	}
	if err != nil {
		return "", errors.New(name + " isn't installed")
	}
	return path, nil
}

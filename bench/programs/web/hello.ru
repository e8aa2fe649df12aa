# What Unicorn and Puma serve: the same as hello.py.
run lambda { |env|
  body = env['PATH_INFO'] == '/' ? "hello\n" : "#{Process.pid}\n"
  [200, { 'content-type' => 'text/plain', 'content-length' => body.bytesize.to_s }, [body]]
}

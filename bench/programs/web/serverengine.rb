# `serverengine.rb PORT WORKERS`: what ServerEngine runs, supervisor, server and workers, made as its
# README shows for TCP servers. Answers the same as hello.ru, one request on a connection.
require 'io/wait'
require 'serverengine'
require 'socket'

module Server
  attr_reader :listener

  def before_run
    @listener = TCPServer.new('127.0.0.1', Integer(ARGV[0]))
  end
end

module Worker
  def run
    until @stop
      next unless server.listener.wait_readable(0.1)
      client = server.listener.accept_nonblock(exception: false)
      answer(client) unless client == :wait_readable
    end
  end

  def stop
    @stop = true
  end

  private

  def answer(client)
    request = line = client.gets
    line = client.gets until line.nil? || line == "\r\n"
    body = request.to_s.start_with?('GET /pid ') ? "#{Process.pid}\n" : "hello\n"
    client.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" \
                 "Content-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}")
  rescue SystemCallError
    # the client has gone
  ensure
    client.close
  end
end

ServerEngine.create(Server, Worker, {
  worker_type: 'process',
  supervisor: true,
  workers: Integer(ARGV[1]),
}).run
